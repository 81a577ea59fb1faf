//! Work that one process at a time does, however many run.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::Database;

/// How often a process that does not hold the lock asks for it, and one that does asks whether it still does.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer to that may take.
const ANSWER: Duration = Duration::from_secs(3);
/// A holder that has not been heard of for so long loses the lock: it hangs, or its machine is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Does `work` for ever, in one process at a time of all that call this with the same `name` on the same database. It is
/// dropped when the lock is lost, and begun again by whoever gets it next. A process that hangs may not notice for a moment
/// that it has lost the lock, so the work must be such that a repetition does no harm.
///
/// When the tables move, so does the lock: each database has its own, and those who have followed already look for it where
/// the tables are now. Whoever went on with the old one would work beside them.
pub async fn alone<F: Future<Output = Infallible>>(database: &Database, name: &str, work: impl Fn() -> F) -> Infallible {
    loop {
        // Errors are silent here: requests and readiness report them.
        if let Ok(switch) = database.switch().await
            && let Ok(mut holder) = database.unpooled(switch.side, SILENCE).await
        {
            tokio::select! {
                // Looked at first: what turns may be a statement of the work itself, which must not go on.
                biased;
                () = database.turned(switch) => {
                    drop(holder);
                    continue;
                }
                () = work_while_held(&mut holder, name, &work) => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for the lock, and works until it is lost.
async fn work_while_held<F: Future<Output = Infallible>>(holder: &mut PgConnection, name: &str, work: &impl Fn() -> F) {
    while let Ok(held) = take_lock(holder, name).await {
        if held {
            tracing::info!(name, "it is this process that does the work");
            tokio::select! {
                never = work() => match never {},
                () = until_lost(holder) => {}
            }
            tracing::warn!(name, "the lock is lost; the work stops until it is held again");
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes the lock for as long as the connection lives; `false` if somebody else holds it.
#[expect(clippy::disallowed_methods, reason = "no statement on a table, and the same for each role")]
async fn take_lock(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))").bind(name).fetch_one(connection).await
}

async fn until_lost(holder: &mut PgConnection) {
    while let Ok(Ok(())) = tokio::time::timeout(ANSWER, holder.ping()).await {
        tokio::time::sleep(LOOK).await;
    }
}
