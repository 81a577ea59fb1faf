//! What keeps writes off: locks that are given up in time, and triggers.

use std::time::Duration;

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection};

use super::relations::oids;
use crate::database::{execute, sqlstate};
use crate::exit::Refused;
use crate::names::Qualified;

/// How long others may be held up by a lock that we wait for, and how often it is tried.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Locking {
    /// How long to wait for a lock at a time, in milliseconds: writers wait behind
    // Below Postgres' deadlock_timeout of a second: above it, those who wait behind could be the ones that are given up.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=900))]
    pub lock_timeout: u64,
    /// How often to try, with growing pauses in between
    #[arg(long, default_value_t = 20)]
    pub lock_attempts: u32,
}

/// The functions behind the triggers, on a side. The event trigger's is made only where we may make one.
pub async fn install(connection: &mut PgConnection) -> Result<()> {
    execute(
        connection,
        "set client_min_messages = warning;
         create schema if not exists splitctl;
         create or replace function splitctl.refuse_write() returns trigger language plpgsql set search_path = pg_catalog as $$
         begin
             raise exception 'table % has moved to another database', tg_relid::regclass
                 using errcode = 'insufficient_privilege', hint = 'splitctl.switches tells where it lives';
         end $$;
         create or replace function splitctl.refuse_truncate() returns trigger language plpgsql set search_path = pg_catalog as $$
         begin
             raise exception 'table % is being moved to another database and cannot be truncated meanwhile', tg_relid::regclass
                 using errcode = 'object_not_in_prerequisite_state', hint = 'delete its rows, or wait for splitctl complete';
         end $$;
         reset client_min_messages",
    )
    .await?;
    Ok(())
}

/// The statements for every table and partition: `{}` stands for its name.
pub async fn for_each(connection: &mut PgConnection, tables: &[Qualified], statement: &str) -> Result<Vec<String>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let names = format!(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid in ({}) order by 1",
        oids(tables)
    );
    let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(names)).fetch_all(connection).await?;
    Ok(names.iter().map(|name| statement.replace("{}", name)).collect())
}

/// Keeps truncate away while the tables move: it would not replicate.
pub const GUARD: &str = "create or replace trigger splitctl_no_truncate before truncate on {} for each statement execute function splitctl.refuse_truncate()";
/// Takes that back.
pub const UNGUARD: &str = "drop trigger if exists splitctl_no_truncate on {}";
/// Refuses writes, whoever they are by; replication passes.
pub const CLOSE: &str = "create or replace trigger splitctl_fence before insert or update or delete on {} for each statement execute function splitctl.refuse_write()";
/// Takes that back.
pub const UNCLOSE: &str = "drop trigger if exists splitctl_fence on {}";

/// Runs statements that need locks, each in a transaction of its own, so that nothing is held while the next one waits.
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

/// Does something that needs locks on the tables, again and again if one is not to be had in time.
///
/// # Errors
/// [`Refused`], with those who are in the way, when it was tried often enough.
pub async fn patiently<T>(
    connection: &mut PgConnection,
    tables: &[Qualified],
    locking: Locking,
    mut act: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T> {
    execute(connection, format!("set lock_timeout = {}", locking.lock_timeout)).await?;
    let mut blockers = Vec::new();
    for attempt in 0..locking.lock_attempts.max(1) {
        match act(connection).await {
            Ok(done) => {
                execute(connection, "set lock_timeout = 0").await?;
                return Ok(done);
            }
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("55P03" | "57014")) => {
                // Whoever began a transaction for it has to be out of that before anything else is asked.
                execute(connection, "rollback").await?;
                blockers = in_the_way(connection, tables).await?;
            }
            Err(error) => {
                let _ = execute(connection, "rollback; set lock_timeout = 0").await;
                return Err(error.into());
            }
        }
        // The others come first, for longer each time.
        tokio::time::sleep(Duration::from_millis(locking.lock_timeout.max(20) * u64::from(attempt + 1).min(10))).await;
    }
    execute(connection, "set lock_timeout = 0").await?;
    let blockers = if blockers.is_empty() { "nobody any more".to_owned() } else { blockers.join("; ") };
    Err(Refused(format!(
        "the tables could not be locked within {} ms, {} times; nothing was changed. In the way: {blockers}",
        locking.lock_timeout, locking.lock_attempts
    ))
    .into())
}

/// Who holds locks on the tables that keep a writer's lock off, or on views, which readers hold off as well.
async fn in_the_way(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>> {
    let statement = format!(
        "select distinct format('process %s (%s, role %s), %s for %s, holds %s on %s', a.pid, coalesce(nullif(a.application_name, ''), a.backend_type),
             coalesce(a.usename, '–'), coalesce(a.state, 'active'), (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0),
             l.mode, l.relation::regclass)
         from pg_locks l
         join pg_stat_activity a on a.pid = l.pid
         where l.granted and l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database())
           and l.pid <> pg_backend_pid() and l.relation in ({})
           and (l.mode not in ('AccessShareLock', 'RowShareLock') or (select c.relkind from pg_class c where c.oid = l.relation) = 'v')
         order by 1",
        oids(tables)
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(connection).await?)
}
