//! Connections to the side to which the tables may move next: open, checked, and with the statements prepared that this
//! process uses. So the first request after a switch needs neither a login nor a statement's preparation.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::by;
use crate::database::Database;
use crate::database::leaving::{IDLE, KeptWarm};
use crate::error::DatabaseError;
use crate::pool::{Connection, Pool};
use crate::statements::{Statement, Statements};
use crate::switches::{Switch, has_switches};

/// How often they are checked. The pool trusts a connection for longer, so no request pings one first.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long one statement of a round may take: longer than any of a request, so that upkeep discards no connection that
/// requests would go on to use.
const LIMIT: Duration = Duration::from_secs(4);
/// When this process says that it has followed a switch, and when it says how long its requests waited. Requests go first.
const REPORTS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Keeps a few connections warm to the side that is not in use, while the tables may move, and reports the waits after each
/// switch. Failures are silent: no request needs that side yet.
pub async fn stay_warm(database: Database) {
    let _kept = database.keep_warm();
    while database.may_move() {
        // Without a known switch the side is unknown too. Requests and readiness report why.
        let Ok(switch) = database.switch().await else {
            sleep(INTERVAL).await;
            continue;
        };
        tokio::select! {
            // A round that is given up returns its connections: requests need them now.
            biased;
            () = database.switched(switch) => report(&database).await,
            () = round(&database, switch) => {}
        }
    }
}

async fn round(database: &Database, switch: Switch) {
    warm(database, switch).await;
    sleep(INTERVAL).await;
}

/// Warms the connections once. They are kept until the result is dropped. [`stay_warm`] warms them for ever.
///
/// # Errors
/// The database's, if it is unknown where the tables are.
pub async fn warm_up(database: &Database) -> Result<KeptWarm, DatabaseError> {
    let switch = database.switch().await?;
    let kept = database.keep_warm();
    warm(database, switch).await;
    Ok(kept)
}

async fn warm(database: &Database, switch: Switch) {
    let Some(statements) = database.statements() else { return };
    let (here, there) = (database.pool(switch.side), database.pool(switch.side.other()));
    there.open_idle(IDLE).await;
    let mut warm = 0;
    if is_moving(there).await {
        learn(here, statements).await;
        let due = statements.due();
        let mut go_on = true;
        for connection in all(there).await {
            match prepare(connection, if go_on { &due } else { &[] }, statements).await {
                Some(true) => warm += usize::from(go_on),
                Some(false) => {}
                // Others would be refused, too, and each refusal is a line in the server's log.
                None => go_on = false,
            }
        }
    }
    statements.note_warm(warm);
}

/// When a statement must have ended that begins now.
fn limit() -> Instant {
    Instant::now() + LIMIT
}

/// Whether splitctl has prepared that side for a move: before that, it may have no tables.
async fn is_moving(there: &Pool) -> bool {
    let Ok(mut connection) = there.connection(limit()).await else { return false };
    let asked = by(Some(limit()), has_switches(&mut connection)).await;
    connection.release(asked).unwrap_or(false)
}

/// Learns the statements of the connection that was used last. It waits for it like a request.
async fn learn(here: &Pool, statements: &Statements) {
    let Ok(mut connection) = here.connection(limit()).await else { return };
    let learnt = by(Some(limit()), statements.learn(&mut connection)).await;
    // Another round learns them.
    let _ = connection.release(learnt);
}

/// The connections to the side that is not in use.
async fn all(there: &Pool) -> Vec<Connection> {
    let mut all = Vec::new();
    while all.len() < there.size().min(IDLE) {
        let Ok(connection) = there.connection(limit()).await else { break };
        all.push(connection);
    }
    all
}

/// Checks one connection, and prepares what it does not have. Whether it has all; `None` if one was refused.
async fn prepare(mut connection: Connection, due: &[Arc<Statement>], statements: &Statements) -> Option<bool> {
    let done = prepare_on(&mut connection, due, statements).await;
    connection.release(done).unwrap_or(Some(false))
}

async fn prepare_on(
    connection: &mut Connection,
    due: &[Arc<Statement>],
    statements: &Statements,
) -> Result<Option<bool>, sqlx::Error> {
    by(Some(limit()), connection.ping()).await?;
    for statement in due {
        if connection.has_prepared(statement) {
            continue;
        }
        match by(Some(limit()), statement.prepare(connection)).await {
            Ok(()) => connection.note_prepared(statement),
            Err(sqlx::Error::Database(_)) => {
                statements.refuse(statement);
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(true))
}

/// Tells splitctl, if it listens, how long requests waited for the switch: the contract in `splitctl/contract/switches.sql`.
async fn report(database: &Database) {
    let followed = Instant::now();
    if let Some(statements) = database.statements() {
        statements.turn();
    }
    for (after, is_complete) in REPORTS.into_iter().zip([false, true]) {
        sleep_until(followed + after).await;
        let Some((side, report)) = database.wait_report(is_complete) else { return };
        let Ok(mut connection) = database.pool(side).connection(limit()).await else { return };
        let sent = by(Some(limit()), notify(&mut connection, &report)).await;
        // Nobody may listen.
        let _ = connection.release(sent);
    }
}

#[expect(clippy::disallowed_methods, reason = "the same for each role, and no statement on a table")]
async fn notify(connection: &mut PgConnection, report: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_notify('splitctl_waits', $1)").bind(report).execute(connection).await.map(drop)
}
