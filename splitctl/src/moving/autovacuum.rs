//! Makes autovacuum yield before a lock is tried. Postgres ends an ordinary worker for a session that has waited for its
//! table for `deadlock_timeout`. A lock that writers queue behind is tried for less time than that.

use std::time::Duration;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_scalar};

use super::relations;
use crate::database::{execute, sqlstate};
use crate::exit::require;
use crate::names::Qualified;

/// How much longer than `deadlock_timeout` to wait for a worker to end.
const MARGIN: Duration = Duration::from_secs(3);

/// Ends the workers that hold one of the relations. No writer waits meanwhile: this lock conflicts with vacuum and not with
/// writes. `lock_timeout` is what the session continues with.
///
/// # Errors
/// [`crate::exit::Refused`] with a worker that prevents wraparound: Postgres does not end that one.
pub async fn make_way(connection: &mut PgConnection, relations: &[Qualified], lock_timeout: Duration) -> Result<()> {
    let workers = relations::select::<Worker>(connection, WORKERS, relations).await?;
    if workers.is_empty() {
        return Ok(());
    }
    for Worker { table, process, prevents_wraparound } in &workers {
        require!(
            !prevents_wraparound,
            "{table}: autovacuum (process {process}) vacuums it to prevent wraparound, and Postgres does not end such a \
             worker: wait until it is done, then repeat the command. Nothing was changed"
        );
    }
    let patience: i32 = query_scalar(DEADLOCK_TIMEOUT).fetch_one(&mut *connection).await?;
    let tables = workers.into_iter().map(|worker| worker.table).collect::<Vec<_>>().join(", ");
    let waited = format!(
        "set lock_timeout = {}; begin; lock table {tables} in share update exclusive mode; commit",
        Duration::from_millis(patience.unsigned_abs().into()).saturating_add(MARGIN).as_millis()
    );
    match execute(connection, waited).await {
        Ok(()) => {}
        // Another session holds the table as a vacuum does. The lock itself is tried next, and names that session.
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("55P03" | "40P01" | "57014")) => {
            execute(connection, "rollback").await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(execute(connection, format!("set lock_timeout = {}", lock_timeout.as_millis())).await?)
}

#[derive(FromRow)]
struct Worker {
    table: String,
    process: i32,
    prevents_wraparound: bool,
}

const DEADLOCK_TIMEOUT: &str = r"
    select setting::int4
    from pg_settings
    where name = 'deadlock_timeout'";

const WORKERS: &str = r"
    select
        format('%I.%I', n.nspname, c.relname) as table,
        a.pid as process,
        a.query like '%(to prevent wraparound)%' as prevents_wraparound
    from pg_stat_activity a
    join pg_locks l on l.pid = a.pid and l.locktype = 'relation' and l.granted
    join pg_class c on c.oid = l.relation
    join pg_namespace n on n.oid = c.relnamespace
    where a.backend_type = 'autovacuum worker'
      and a.datname = current_database()
      and l.database = (select oid from pg_database where datname = current_database())
      and c.oid = any ($1)
      and c.relkind = 'r'
    group by 1, 2, 3";
