//! Replication slots: what keeps a stream's place, and its server's WAL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::stream::Names;
use crate::database::{execute, sqlstate};
use crate::exit::require;

/// How long a new slot may wait for the transactions that are open.
const SLOT_PATIENCE: &str = "10s";
/// How long whoever uses a slot may take to let it go.
const RELEASE: Duration = Duration::from_secs(20);

/// Makes the slot of a stream, if there is none.
///
/// # Errors
/// If open transactions are in its way: which.
pub async fn made(from: &mut PgConnection, slot: &str) -> Result<()> {
    match state(from, slot).await? {
        Slot::Missing => {}
        Slot::Lost => bail!("the slot {slot} has lost its WAL (max_slot_wal_keep_size): `splitctl abort`, and copy again"),
        Slot::Holds(_) => return Ok(()),
    }
    execute(from, format!("set statement_timeout = '{SLOT_PATIENCE}'")).await?;
    let made = sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')").bind(slot).execute(&mut *from).await;
    execute(from, "set statement_timeout = 0").await?;
    match made {
        Ok(_) => Ok(()),
        Err(error) if sqlstate(&error).as_deref() == Some("57014") => {
            let open = long_transactions(from, Duration::ZERO).await?;
            require!(
                false,
                "a replication slot waits for every open write transaction of the cluster, and these did not end within {SLOT_PATIENCE}: {}. End them, and repeat the command",
                open.join("; ")
            );
            Ok(())
        }
        Err(error) => Err(error)
            .context("a replication slot cannot be made (it takes wal_level = logical, a free slot, and REPLICATION)"),
    }
}

/// Transactions of the whole cluster that have written and been open for longer than this.
pub async fn long_transactions(connection: &mut PgConnection, age: Duration) -> Result<Vec<String>> {
    let open = sqlx::query_scalar(
        "select format('process %s (%s) in database %s, open for %s', pid, coalesce(nullif(application_name, ''), usename, backend_type),
             coalesce(datname, '–'), (now() - xact_start)::interval(0))
         from pg_stat_activity
         where backend_xid is not null and pid <> pg_backend_pid() and xact_start < now() - make_interval(secs => $1)
         union all
         select format('prepared transaction %L in database %s, since %s', gid, database, prepared::timestamp(0))
         from pg_prepared_xacts
         order by 1",
    );
    Ok(open.bind(age.as_secs_f64()).fetch_all(connection).await?)
}

/// What a server says of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// There is none.
    Missing,
    /// It has fallen behind further than its server keeps WAL for: what it stood for is gone.
    Lost,
    /// It is there, and holds so many bytes of WAL back.
    Holds(i64),
}

/// Asks the side that the stream comes from.
pub async fn state(from: &mut PgConnection, slot: &str) -> Result<Slot> {
    let row = sqlx::query(
        "select database = current_database(), coalesce(wal_status, '') = 'lost', pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
         from pg_replication_slots where slot_name = $1",
    );
    let Some(row) = row.bind(slot).fetch_optional(from).await? else { return Ok(Slot::Missing) };
    let (ours, lost, bytes): (bool, bool, Option<i64>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    require!(
        ours,
        "another database of the cluster has a replication slot called {slot}, of another move: complete or abort that first"
    );
    Ok(match bytes {
        Some(bytes) if !lost => Slot::Holds(bytes),
        _ => Slot::Lost,
    })
}

/// Drops the slots of all streams of the move on one side.
pub async fn all_dropped(connection: &mut PgConnection, names: &Names) -> Result<()> {
    dropped(connection, &names.all_streams("slot_name::text")).await
}

/// Drops slots; whoever still uses one is given a moment, and then ended.
pub async fn dropped(connection: &mut PgConnection, condition: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let used = format!(
            "select slot_name::text, active_pid from pg_replication_slots where database = current_database() and ({condition})"
        );
        let rows = sqlx::query(AssertSqlSafe(used)).fetch_all(&mut *connection).await?;
        let mut left = 0;
        for row in rows {
            let (name, user): (String, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(user) = user {
                left += 1;
                if begun.elapsed() > Duration::from_secs(1) {
                    sqlx::query("select pg_terminate_backend($1)").bind(user).execute(&mut *connection).await?;
                }
                continue;
            }
            match sqlx::query("select pg_drop_replication_slot($1)").bind(&name).execute(&mut *connection).await {
                Ok(_) => {}
                // In use again, or dropped by another.
                Err(error) if matches!(sqlstate(&error).as_deref(), Some("55006" | "42704")) => left += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > RELEASE {
            bail!("a replication slot of the move is in use and was not let go within {RELEASE:?}: repeat the command");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
