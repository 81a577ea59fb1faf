//! Replication slots: a slot keeps the position of a stream, and its server keeps the WAL from there on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Row, query, query_as, query_scalar, raw_sql};

use super::side::Database;
use crate::database::{execute, sqlstate};
use crate::exit::{Refused, require};
use crate::manifest::Owner;

/// How long a new slot may wait for open transactions.
pub const CREATION: Duration = Duration::from_secs(10);
/// How long a session may go on using a slot that is to be dropped.
const RELEASE: Duration = Duration::from_secs(20);
/// After this time the session is terminated.
const GRACE: Duration = Duration::from_secs(1);

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The server has no such slot.
    Missing,
    /// It has fallen behind the WAL that its server keeps, so changes are lost.
    Lost,
    /// It exists, and holds back this many bytes of WAL.
    Holds(i64),
}

/// Reads the state of a slot from the server that it is on.
pub async fn find(from: &mut PgConnection, name: &str) -> Result<Slot> {
    let Some(found) = query_as::<_, Found>(FOUND).bind(name).fetch_optional(from).await? else { return Ok(Slot::Missing) };
    require!(
        found.is_ours,
        "{name}: another database of the cluster has a replication slot of this name, from another move: complete or abort \
         that move first"
    );
    Ok(match found.bytes {
        Some(bytes) if !found.is_lost => Slot::Holds(bytes),
        _ => Slot::Lost,
    })
}

/// Whether new slots on this server are for its standbys too, so that a stream goes on after a failover: from Postgres 17
/// on, unless the manifest has `failover = false`.
pub fn for_standbys(from: &Database, owner: &Owner) -> bool {
    from.version >= 17 && owner.failover != Some(false)
}

/// Whether a slot is for the standbys of its server.
pub async fn is_for_standbys(from: &mut Database, name: &str) -> Result<bool, sqlx::Error> {
    if from.version < 17 {
        return Ok(false);
    }
    let found = query_scalar("select failover from pg_replication_slots where slot_name = $1").bind(name);
    Ok(found.fetch_optional(&mut from.connection).await?.unwrap_or(false))
}

/// Creates a slot, unless it exists. No stream has begun from it yet, so one that has lost its WAL is replaced.
///
/// # Errors
/// [`Refused`] with the open transactions that the new slot waits for.
pub async fn create(from: &mut Database, name: &str, owner: &Owner) -> Result<()> {
    let create = if for_standbys(from, owner) { CREATE_FOR_STANDBYS } else { CREATE };
    let from = &mut from.connection;
    match find(from, name).await? {
        Slot::Missing => {}
        Slot::Lost => {
            query("select pg_drop_replication_slot($1)").bind(name).execute(&mut *from).await?;
        }
        Slot::Holds(_) => return Ok(()),
    }
    execute(from, format!("set statement_timeout = {}", CREATION.as_millis())).await?;
    let created = query(create).bind(name).execute(&mut *from).await;
    execute(from, "set statement_timeout = 0").await?;
    match created {
        Ok(_) => Ok(()),
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("57014" | "55P03")) => {
            Err(waits(name, &long_transactions(from, Duration::ZERO).await?).into())
        }
        Err(error) => Err(error).with_context(|| {
            format!(
                "{name}: the replication slot cannot be created (it needs wal_level = logical, a free slot, REPLICATION)"
            )
        }),
    }
}

/// The refusal of a slot that waits for these transactions.
pub fn waits(name: &str, open: &[String]) -> Refused {
    Refused(format!(
        "{name}: a new replication slot waits for every open write transaction of the cluster. These did not end within \
         {CREATION:?}: {}. End them, and repeat the command",
        open.join("; ")
    ))
}

/// Runs statements in one transaction, which is flushed to the disk with all WAL before it, whatever its commits waited for.
/// Returns a position in it for [`advance`], the end of a record. What is flushed may end within a record, whose rest nobody
/// flushes while its transaction goes on.
pub async fn flush(connection: &mut PgConnection, statements: &str) -> Result<String, sqlx::Error> {
    let statements = format!("{FLUSH}; {statements}; commit");
    let row = raw_sql(AssertSqlSafe(statements)).fetch_all(connection).await?.into_iter().next();
    row.ok_or(sqlx::Error::RowNotFound)?.try_get("position")
}

/// Advances a slot to a position of [`flush`], and returns it.
pub async fn advance(connection: &mut PgConnection, name: &str, to: &str) -> Result<String, sqlx::Error> {
    query_scalar(ADVANCE).bind(name).bind(to).fetch_one(connection).await
}

/// Write transactions of the whole cluster that have been open for longer than this.
pub async fn long_transactions(connection: &mut PgConnection, age: Duration) -> Result<Vec<String>, sqlx::Error> {
    query_scalar(LONG_TRANSACTIONS).bind(age.as_secs_f64()).fetch_all(connection).await
}

/// Drops the slots of this database whose names match one of the `like` patterns. A session that uses one is terminated
/// after a second.
pub async fn drop_all(connection: &mut PgConnection, patterns: &[String]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut left = 0;
        for slot in query_as::<_, Used>(USED).bind(patterns).fetch_all(&mut *connection).await? {
            left += usize::from(!slot.drop(connection, begun.elapsed() > GRACE).await?);
        }
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > RELEASE {
            bail!("a session used a replication slot of the move for longer than {RELEASE:?}: repeat the command");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(FromRow)]
struct Used {
    name: String,
    user_process: Option<i32>,
}

impl Used {
    /// Returns whether the slot is gone.
    async fn drop(&self, connection: &mut PgConnection, terminate: bool) -> Result<bool> {
        if let Some(process) = self.user_process {
            if terminate {
                query("select pg_terminate_backend($1)").bind(process).execute(connection).await?;
            }
            return Ok(false);
        }
        match query("select pg_drop_replication_slot($1)").bind(&self.name).execute(connection).await {
            Ok(_) => Ok(true),
            // A session uses it again, or another one has dropped it.
            Err(error) if matches!(sqlstate(&error).as_deref(), Some("55006" | "42704")) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(FromRow)]
struct Found {
    is_ours: bool,
    is_lost: bool,
    bytes: Option<i64>,
}

const FOUND: &str = r"
    select
        database = current_database() as is_ours,
        coalesce(wal_status, '') = 'lost' as is_lost,
        pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 as bytes
    from pg_replication_slots
    where slot_name = $1";

const CREATE: &str = "select pg_create_logical_replication_slot($1, 'pgoutput')";

const CREATE_FOR_STANDBYS: &str = "select pg_create_logical_replication_slot($1, 'pgoutput', failover => true)";

const FLUSH: &str = "
    begin;
    set local synchronous_commit = local;
    select pg_logical_emit_message(true, 'splitctl', 'switch')::text as position";

const ADVANCE: &str = "select end_lsn::text from pg_replication_slot_advance($1, $2::text::pg_lsn)";

const USED: &str = r"
    select slot_name::text as name, active_pid as user_process
    from pg_replication_slots
    where database = current_database()
      and slot_name::text like any ($1)";

const LONG_TRANSACTIONS: &str = r"
    select format(
        'process %s (%s) in database %s, open for %s',
        pid,
        coalesce(nullif(application_name, ''), usename, backend_type),
        coalesce(datname, '-'),
        (now() - xact_start)::interval(0)
    )
    from pg_stat_activity
    where backend_xid is not null
      and pid <> pg_backend_pid()
      and xact_start < now() - make_interval(secs => $1)
    union all
    select format('prepared transaction %L in database %s, since %s', gid, database, prepared::timestamp(0))
    from pg_prepared_xacts
    order by 1";
