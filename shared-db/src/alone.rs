//! Work that one process does at a time, however many processes run.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use crate::database::Database;

/// How often a process tries to take the lock, and how often the holder checks that it still has it.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the work rests after a switch.
const AFTER_SWITCH: Duration = Duration::from_millis(200);
/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// After this silence the server closes the holder's connection: its process hangs, or its machine is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Does `work` for ever, in one process at a time of all that call this with the same `name` on the same database.
///
/// The work is dropped when the lock is lost, and begins again in the next process that takes the lock. A process that hangs
/// may notice late that it has lost the lock, so a repetition of the work must do no harm.
///
/// Each database has its own lock. When the tables move, the process drops the work and takes the lock on the other side:
/// processes that have followed the tables already compete for it there.
pub async fn alone<F: Future<Output = Infallible>>(database: &Database, name: &str, work: impl Fn() -> F) -> Infallible {
    loop {
        // Errors are silent: requests and readiness report them.
        if let Ok(switch) = database.switch().await
            && let Ok(mut holder) = database.pool(switch.side).unpooled(SILENCE).await
        {
            tokio::select! {
                // Polled first: a statement of the work may have found the switch, and the work must not go on.
                biased;
                () = database.switched(switch) => {
                    // A login there and the end of this session cost CPU, which the requests need now.
                    sleep(AFTER_SWITCH).await;
                    drop(holder);
                    continue;
                }
                () = work_while_held(&mut holder, name, &work) => {}
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Waits for the lock, and works until it is lost.
async fn work_while_held<F: Future<Output = Infallible>>(holder: &mut PgConnection, name: &str, work: &impl Fn() -> F) {
    // What gets no answer, or one of a standby, ends this session: the next one may lead to another server.
    while let Ok(Ok(Some(held))) = timeout(CHECK_TIMEOUT, take_lock(holder, name)).await {
        if held {
            tracing::info!(name, "this process does the work");
            tokio::select! {
                never = work() => match never {},
                () = until_lost(holder) => {}
            }
            tracing::warn!(name, "the lock is lost: the work stops until this process takes it again");
            break;
        }
        sleep(INTERVAL).await;
    }
}

/// Takes the lock for as long as the connection lives. `false` if another process holds it, and `None` on a standby, whose
/// locks are its own.
#[expect(clippy::disallowed_methods, reason = "no statement on a table, and the same for each role")]
async fn take_lock(connection: &mut PgConnection, name: &str) -> Result<Option<bool>, sqlx::Error> {
    const LOCK: &str = "
        select case when not pg_is_in_recovery() then pg_try_advisory_lock(hashtextextended($1, 0)) end";
    sqlx::query_scalar(LOCK).bind(name).fetch_one(connection).await
}

async fn until_lost(holder: &mut PgConnection) {
    while let Ok(Ok(())) = timeout(CHECK_TIMEOUT, holder.ping()).await {
        sleep(INTERVAL).await;
    }
}
