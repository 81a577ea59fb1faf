//! An application with a login of its own. It learns from `--after-switch` where its tables live, as after a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dev::postgres::connect;
use dev::wait::block_on;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::fixture::{Fixture, try_execute, until};

/// The SQLSTATE of a side that is closed.
const DENIED: &str = "42501";

/// A role that logs in on both sides.
#[derive(Clone)]
pub struct Application {
    source: String,
    target: String,
    /// Holds `source` or `target`; the command of `--after-switch` writes it.
    side: PathBuf,
}

impl Application {
    pub fn new(fixture: &Fixture, role: &str) -> Self {
        let side = fixture.folder.path().join("side");
        std::fs::write(&side, "source").expect("written");
        let last = fixture.clusters.last().expect("a cluster");
        let (source, target) = (fixture.clusters[0].url_as(role, "before"), last.url_as(role, "after"));
        Self { source, target, side }
    }

    /// The command that tells it where its tables live.
    pub fn after_switch(&self) -> String {
        format!("printf $SPLITCTL_SIDE >{0}.new && mv {0}.new {0}", self.side.display())
    }

    /// The side where it believes its tables to live.
    pub fn side(&self) -> String {
        std::fs::read_to_string(&self.side).expect("a side")
    }

    /// Its login on a side.
    pub fn url(&self, side: &str) -> &str {
        if side == "target" { &self.target } else { &self.source }
    }

    /// Its login where its tables live.
    pub fn current_url(&self) -> &str {
        self.url(&self.side())
    }

    /// Runs statements one by one, where its tables live.
    pub fn works(&self, statements: &str) {
        for statement in statements.split("\n\n").filter(|statement| !statement.trim().is_empty()) {
            let done = block_on(async || connect(self.current_url()).await?.execute(AssertSqlSafe(statement)).await);
            done.unwrap_or_else(|error| panic!("on the {}: {statement}\n{error:?}", self.side()));
        }
    }

    /// Checks that the side refuses each statement.
    pub fn is_refused(&self, side: &str, statements: &[&str]) {
        assert_ne!(self.side(), side);
        for statement in statements {
            assert_eq!(try_execute(self.url(side), statement), Err(DENIED.to_owned()), "on the {side}: {statement}");
        }
    }
}

/// Work that goes on while the tables move.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Runs `work` again and again on another thread. It returns how many writes were acknowledged.
    pub fn start(mut work: impl FnMut() -> usize + Send + 'static) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                counts.fetch_add(work(), Ordering::Relaxed);
            }
        });
        Self { stop, acknowledged, thread: Some(thread) }
    }

    /// Runs a transaction with the numbers from 0 on in place of `{n}`. It keeps its connection until it is refused, and
    /// repeats what was refused.
    pub fn of_statements(application: &Application, transaction: &'static str) -> Self {
        let application = application.clone();
        let (mut connection, mut number) = (None, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self::start(move || {
            // A few writes a second are enough, and the other tests need the machine.
            std::thread::sleep(Duration::from_millis(10));
            runtime.block_on(async {
                let mut session = match connection.take() {
                    Some(session) => session,
                    None => connect(application.current_url()).await.expect("a login"),
                };
                let statement = AssertSqlSafe(transaction.replace("{n}", &number.to_string()));
                match session.execute(statement).await {
                    Ok(_) => {
                        connection = Some(session);
                        number += 1;
                        1
                    }
                    Err(error) => {
                        let code = error.as_database_error().and_then(|error| error.code());
                        assert_eq!(code.as_deref(), Some(DENIED), "on the {}: {error:?}", application.side());
                        session.close().await.expect("closed");
                        0
                    }
                }
            })
        })
    }

    /// Waits until more is acknowledged.
    pub fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let thread = self.thread.as_ref().expect("it runs");
        until("the load goes on", || {
            assert!(!thread.is_finished(), "the load has failed");
            self.acknowledged.load(Ordering::Relaxed) > before + 3
        });
    }

    /// Ends it, and returns how many writes were acknowledged.
    pub fn stop(mut self) -> usize {
        self.end().expect("the load did not fail");
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn end(&mut self) -> std::thread::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The test has failed already if the thread has.
        let _ = self.end();
    }
}
