//! The fence keeps writes off tables: by locks that are tried for a short time, and by triggers.

use std::time::Duration;

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use super::{autovacuum, relations};
use crate::database::{execute, sqlstate};
use crate::exit::Refused;
use crate::names::Qualified;

/// How long a lock is tried, and how often.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Locking {
    /// How long to wait for a lock at a time: other sessions queue behind it. From 1ms to 900ms
    #[arg(long, default_value = "200ms", value_parser = parse_lock_timeout)]
    pub lock_timeout: Duration,
    /// How often to try, with growing pauses in between
    #[arg(long, default_value_t = 20)]
    pub lock_attempts: u32,
}

/// Above Postgres' `deadlock_timeout` of a second, the server could cancel a session of a service instead of ours.
fn parse_lock_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(1)..=Duration::from_millis(900);
    if allowed.contains(&timeout) { Ok(timeout) } else { Err("it must be from 1ms to 900ms".to_owned()) }
}

/// Refuses truncate while the tables move, because it does not replicate.
pub const GUARD: &str = "create or replace trigger splitctl_no_truncate before truncate on {} \
                         for each statement execute function splitctl.refuse_truncate()";
/// Undoes [`GUARD`].
pub const UNGUARD: &str = "drop trigger if exists splitctl_no_truncate on {}";
/// Refuses writes of every role. The triggers do not fire for replication.
pub const CLOSE: &str = "create or replace trigger splitctl_fence before insert or update or delete on {} \
                         for each statement execute function splitctl.refuse_write()";
/// Undoes [`CLOSE`].
pub const REOPEN: &str = "drop trigger if exists splitctl_fence on {}";

/// Creates the functions of the triggers.
pub async fn install(connection: &mut PgConnection) -> Result<()> {
    Ok(execute(connection, FUNCTIONS).await?)
}

/// Builds a statement for every table and partition: `{}` in it becomes the name.
pub async fn statements(
    connection: &mut PgConnection,
    tables: &[Qualified],
    statement: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let names = relations::select_lines(connection, NAMES, tables).await?;
    Ok(names.iter().map(|name| statement.replace("{}", name)).collect())
}

/// Runs a statement for every table and partition.
pub async fn run_for_each(
    connection: &mut PgConnection,
    tables: &[Qualified],
    statement: &str,
    locking: Locking,
) -> Result<()> {
    let statements = statements(connection, tables, statement).await?;
    run_each(connection, tables, &statements, locking).await
}

/// Runs statements that need locks. Each is a transaction of its own, so no lock is held while the next one is tried.
pub async fn run_each(
    connection: &mut PgConnection,
    tables: &[Qualified],
    statements: &[String],
    locking: Locking,
) -> Result<()> {
    for statement in statements {
        patiently(connection, tables, locking, async |connection: &mut PgConnection| {
            execute(connection, statement.clone()).await
        })
        .await?;
    }
    Ok(())
}

/// Runs `act`, which needs locks, and runs it again if it does not get a lock in time. `relations` are those that it locks;
/// if the list is empty, every lock of the database counts as a blocker.
///
/// # Errors
/// [`Refused`] after the last attempt, with the sessions that block it.
pub async fn patiently<T>(
    connection: &mut PgConnection,
    relations: &[Qualified],
    locking: Locking,
    mut act: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T> {
    let Locking { lock_timeout, lock_attempts } = locking;
    execute(connection, format!("set lock_timeout = {}", lock_timeout.as_millis())).await?;
    let mut blockers = Vec::new();
    for attempt in 0..lock_attempts.max(1) {
        autovacuum::make_way(connection, relations, lock_timeout).await?;
        match act(connection).await {
            Ok(done) => {
                execute(connection, "set lock_timeout = 0").await?;
                return Ok(done);
            }
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("55P03" | "57014")) => {
                // `act` may have begun a transaction, which has failed.
                execute(connection, "rollback").await?;
                blockers = list_blockers(connection, relations).await?;
            }
            Err(error) => {
                let _ = execute(connection, "rollback; set lock_timeout = 0").await;
                return Err(error.into());
            }
        }
        // The sessions that queued behind the lock go first.
        tokio::time::sleep(lock_timeout.max(Duration::from_millis(20)) * (attempt + 1).min(10)).await;
    }
    execute(connection, "set lock_timeout = 0").await?;
    let blockers = if blockers.is_empty() { "none is left".to_owned() } else { blockers.join("; ") };
    Err(Refused(format!(
        "the tables could not be locked: {lock_attempts} attempts of {lock_timeout:?} failed, nothing was changed. Sessions \
         that block the lock: {blockers}"
    ))
    .into())
}

async fn list_blockers(connection: &mut PgConnection, relations: &[Qualified]) -> Result<Vec<String>> {
    let oids = relations::oids(connection, relations).await?;
    Ok(query_scalar(BLOCKERS).bind(oids).fetch_all(connection).await?)
}

const FUNCTIONS: &str = include_str!("fence.sql");

const NAMES: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
    order by 1";

/// Sessions whose locks on the relations conflict with a writer's lock, or with the exclusive lock that a view needs.
const BLOCKERS: &str = r"
    select distinct format(
        'process %s (%s, role %s), %s for %s, holds %s on %s',
        a.pid,
        coalesce(
            case when a.backend_type = 'autovacuum worker' then a.query end,
            nullif(a.application_name, ''),
            a.backend_type
        ),
        coalesce(a.usename, '–'),
        coalesce(a.state, 'active'),
        (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0),
        l.mode,
        l.relation::regclass
    )
    from pg_locks l
    join pg_stat_activity a on a.pid = l.pid
    join pg_class c on c.oid = l.relation
    where l.granted
      and l.locktype = 'relation'
      and l.database = (select oid from pg_database where datname = current_database())
      and l.pid <> pg_backend_pid()
      and (cardinality($1) = 0 or l.relation = any ($1))
      and (l.mode not in ('AccessShareLock', 'RowShareLock') or c.relkind in ('v', 'm'))
    order by 1";
