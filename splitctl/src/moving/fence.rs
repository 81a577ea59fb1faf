//! The fence keeps writes off tables: by locks that are tried for a short time, and by triggers.

use std::time::Duration;

use anyhow::Result;
use sqlx::postgres::types::Oid;
use sqlx::{PgConnection, query_scalar};

use super::{autovacuum, marker, relations};
use crate::database::{AWAIT_DISK, AWAIT_NO_DISK, LOCK_TIMEOUT, execute, sqlstate};
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
/// Takes the fence's triggers off.
pub const UNFENCE: &str = "drop trigger if exists splitctl_fence on {}";

/// Opens a side to writes. The fence's triggers let writers pass as long as PUBLIC may read the marker.
pub fn open(owner_name: &str) -> String {
    format!("grant select on {} to public", marker::table(owner_name))
}

/// Closes a side to writes of every role, by one row of the catalog, however many tables there are.
pub fn close(owner_name: &str) -> String {
    format!("revoke select on {} from public", marker::table(owner_name))
}

/// Puts the fence's triggers on the tables of the side that a switch will leave. They let writers pass for now. They do not
/// fire for replication.
pub async fn prepare(connection: &mut PgConnection, owner_name: &str, tables: &[Qualified], locking: Locking) -> Result<()> {
    execute(connection, open(owner_name)).await?;
    put_triggers(connection, owner_name, tables, UNFENCED, locking).await
}

/// Puts the triggers on those tables of a closed side that lack them.
pub async fn complete(
    connection: &mut PgConnection,
    owner_name: &str,
    tables: &[Qualified],
    locking: Locking,
) -> Result<()> {
    put_triggers(connection, owner_name, tables, UNFENCED, locking).await
}

/// Replaces the triggers of version 1 on the closed side: they refuse writes whether the side is closed or not.
pub async fn renew(connection: &mut PgConnection, owner_name: &str, tables: &[Qualified], locking: Locking) -> Result<()> {
    execute(connection, close(owner_name)).await?;
    put_triggers(connection, owner_name, tables, FENCED_BY_VERSION_1, locking).await
}

async fn put_triggers(
    connection: &mut PgConnection,
    owner_name: &str,
    tables: &[Qualified],
    which: &'static str,
    locking: Locking,
) -> Result<()> {
    install(connection).await?;
    let lacking = relations::select_lines(connection, which, tables).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    let marker: Oid =
        query_scalar("select $1::text::regclass::oid").bind(marker::table(owner_name)).fetch_one(&mut *connection).await?;
    let statements: Vec<String> = lacking
        .iter()
        .map(|table| {
            format!(
                "create or replace trigger splitctl_fence before insert or update or delete on {table}
                 for each statement execute function splitctl.refuse_write({})",
                marker.0
            )
        })
        .collect();
    run_each(connection, tables, &statements, locking).await
}

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

/// Runs statements that need locks, and that may be repeated. Each is a transaction of its own, so no lock is held while the
/// next one is tried.
pub async fn run_each(
    connection: &mut PgConnection,
    tables: &[Qualified],
    statements: &[String],
    locking: Locking,
) -> Result<()> {
    // As a rule nobody is in the way, and then one round trip is enough for all.
    if statements.len() > 1 && run_at_once(connection, statements, locking.lock_timeout).await? {
        return Ok(());
    }
    for statement in statements {
        patiently(connection, tables, locking, async |connection: &mut PgConnection| {
            execute(connection, statement.clone()).await
        })
        .await?;
    }
    Ok(())
}

/// Returns whether all statements got their locks. The disk is waited for once: when the last commit is durable, all before
/// it are, too.
async fn run_at_once(connection: &mut PgConnection, statements: &[String], lock_timeout: Duration) -> Result<bool> {
    let mut all = format!("set lock_timeout = {}; {AWAIT_NO_DISK}", lock_timeout.as_millis());
    for (number, statement) in (1..).zip(statements) {
        if number == statements.len() {
            all += &format!("; {AWAIT_DISK}");
        }
        all += &format!("; begin; {statement}; commit");
    }
    let done = execute(connection, all).await;
    execute(connection, format!("rollback; {AWAIT_DISK}; {LOCK_TIMEOUT}")).await?;
    match done {
        Ok(()) => Ok(true),
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("55P03" | "40P01")) => Ok(false),
        Err(error) => Err(error.into()),
    }
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
                execute(connection, LOCK_TIMEOUT).await?;
                return Ok(done);
            }
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("55P03" | "57014" | "40P01")) => {
                // `act` may have begun a transaction, which has failed.
                execute(connection, "rollback").await?;
                let now = list_blockers(connection, relations).await?;
                // Whoever was in the way may be gone when the last attempt has failed.
                blockers = if now.is_empty() { blockers } else { now };
            }
            Err(error) => {
                let _ = execute(connection, format!("rollback; {LOCK_TIMEOUT}")).await;
                return Err(error.into());
            }
        }
        // The sessions that queued behind the lock go first.
        tokio::time::sleep(lock_timeout.max(Duration::from_millis(20)) * (attempt + 1).min(10)).await;
    }
    execute(connection, LOCK_TIMEOUT).await?;
    let blockers = if blockers.is_empty() { "none was found".to_owned() } else { blockers.join("; ") };
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

/// Tables and partitions without the fence's trigger, of whatever version.
pub const UNFENCED: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')
      and not exists (
          select
          from pg_trigger t
          where t.tgrelid = c.oid
            and t.tgname = 'splitctl_fence'
            and t.tgenabled = 'O'
      )
    order by 1";

/// Tables and partitions with the trigger of version 1, which has no argument.
pub const FENCED_BY_VERSION_1: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_trigger t on t.tgrelid = c.oid and t.tgname = 'splitctl_fence' and t.tgnargs = 0
    where c.oid = any ($1)
    order by 1";

/// Sessions whose locks on the relations conflict with a writer's lock, or with the exclusive lock that a view needs. If
/// there are none, a lock that excludes readers has failed, and these are the readers.
const BLOCKERS: &str = r"
    with held as (
        select
            l.pid,
            l.virtualtransaction,
            l.mode,
            l.relation,
            l.mode not in ('AccessShareLock', 'RowShareLock') or c.relkind in ('v', 'm') as holds_up_writers
        from pg_locks l
        join pg_class c on c.oid = l.relation
        where l.granted
          and l.locktype = 'relation'
          and l.database = (select oid from pg_database where datname = current_database())
          and l.pid is distinct from pg_backend_pid()
          and (cardinality($1) = 0 or l.relation = any ($1))
    )
    select distinct format(
        'process %s (%s, role %s), %s for %s, holds %s on %s',
        a.pid,
        coalesce(
            case when a.backend_type = 'autovacuum worker' then a.query end,
            nullif(a.application_name, ''),
            a.backend_type
        ),
        coalesce(a.usename, '-'),
        coalesce(a.state, 'active'),
        (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0),
        l.mode,
        l.relation::regclass
    )
    from held l
    join pg_stat_activity a on a.pid = l.pid
    where l.holds_up_writers
       or cardinality($1) > 0 and not exists (select from held h where h.holds_up_writers)
    union
    select format(
        'the prepared transaction %L of %s, for %s, holds %s on %s: `commit prepared` or `rollback prepared` ends it',
        p.gid,
        p.owner,
        (clock_timestamp() - p.prepared)::interval(0),
        l.mode,
        l.relation::regclass
    )
    from held l
    join pg_locks x on x.locktype = 'transactionid' and x.virtualtransaction = l.virtualtransaction and x.pid is null
    join pg_prepared_xacts p on p.transaction = x.transactionid
    where l.pid is null
    order by 1";
