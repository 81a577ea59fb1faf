//! Waiting: for a condition that another process or task brings about, and for a future from blocking code.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// A test shares its machine with many others, so a condition gets much time.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(10);

/// A condition did not hold in time.
#[derive(Debug, thiserror::Error)]
#[error("{claim}: not within {patience:?}")]
pub struct Late {
    claim: String,
    patience: Duration,
}

/// Waits until `holds` returns true, and lets other tasks of the thread run meanwhile.
///
/// # Panics
/// If it does not hold within two minutes.
pub async fn until(claim: impl Display, mut holds: impl AsyncFnMut() -> bool) {
    let done = within(PATIENCE, claim, async || Ok::<_, Late>(holds().await)).await;
    done.unwrap_or_else(|late| panic!("{late}"));
}

/// The same in a test without asynchronous code.
///
/// # Panics
/// If it does not hold within two minutes.
#[track_caller]
pub fn until_blocking(claim: impl Display, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{claim}: not within {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `holds` returns true, for `patience` at most: the form for commands, which report an error.
///
/// # Errors
/// The first error of `holds`; [`Late`].
pub async fn within<E: From<Late>>(
    patience: Duration,
    claim: impl Display,
    mut holds: impl AsyncFnMut() -> Result<bool, E>,
) -> Result<(), E> {
    let deadline = Instant::now() + patience;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(Late { claim: claim.to_string(), patience }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Runs `work` to its end from blocking code, on a thread and a runtime of its own. A thread that runs other futures may
/// call it, too.
///
/// # Panics
/// If `work` does.
pub fn block_on<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
