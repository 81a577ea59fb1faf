//! What stands behind a view, and behind the rule that reads the same rows.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{Replica, compare};

/// How long a switch may wait for those who are reading the view, while all others wait behind it.
const LOCK_TIMEOUT: &str = "200ms";
/// How often it is tried, with pauses for the others in between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// How long a row may differ: its event may be on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts the replica behind its view, if it is as good as what is there now.
pub(super) async fn put_behind(owner: &mut PgConnection, replica: Replica) -> Result<ExitCode> {
    if is_behind(owner, replica).await? {
        println!("{} reads {} already", replica.view(), replica.table());
        return Ok(ExitCode::SUCCESS);
    }
    check_is_kept_up(owner, replica).await?;
    // What is committed before this is compared; what comes after it is copied while the view is held.
    let horizon = sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text");
    let horizon: String = horizon.fetch_one(&mut *owner).await?;
    let differences = compare::lasting(owner, replica, PATIENCE).await?;
    ensure!(
        differences.is_empty(),
        "{} rows of {} are not as published; `cargo xtask replica compare` shows them, `{} replica rebuild` fills it anew",
        differences.len(),
        replica.table(),
        replica.service()
    );
    let definition = match replica {
        Replica::Customers => include_str!("customers.use.sql"),
        Replica::OpenOrders => include_str!("open_orders.use.sql"),
    };
    let copy = match replica {
        Replica::Customers => include_str!("customers.copy.sql"),
        Replica::OpenOrders => include_str!("open_orders.copy.sql"),
    };
    switch(owner, definition, Some((copy, &horizon))).await?;
    println!("{} reads {} from now on; `cargo xtask replica release` takes that back", replica.view(), replica.table());
    Ok(ExitCode::SUCCESS)
}

/// Puts the other service's table behind the view again.
pub(super) async fn release(owner: &mut PgConnection, replica: Replica) -> Result<ExitCode> {
    if !is_behind(owner, replica).await? {
        println!("{} does not read {}", replica.view(), replica.table());
        return Ok(ExitCode::SUCCESS);
    }
    let definition = match replica {
        Replica::Customers => include_str!("customers.release.sql"),
        Replica::OpenOrders => include_str!("open_orders.release.sql"),
    };
    switch(owner, definition, None).await?;
    println!("{} reads the other service's table again; leave EVENTS_VIA on until its lag has passed", replica.view());
    Ok(ExitCode::SUCCESS)
}

/// Whether the view reads the replica now.
async fn is_behind(owner: &mut PgConnection, replica: Replica) -> Result<bool> {
    let reads = sqlx::query_scalar(
        "select exists (
             select
             from pg_rewrite r
             join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
             where r.ev_class = to_regclass($1) and d.refclassid = 'pg_class'::regclass and d.refobjid = to_regclass($2))",
    );
    Ok(reads.bind(replica.view()).bind(replica.table()).fetch_one(owner).await?)
}

/// Without a consumer, the replica would be right now and wrong soon; and what could not be applied is not in it.
async fn check_is_kept_up(owner: &mut PgConnection, replica: Replica) -> Result<()> {
    let service = replica.service();
    let held = sqlx::query_scalar(
        "select exists (
             select
             from pg_locks l
             join pg_database d on d.oid = l.database and d.datname = current_database()
             where l.locktype = 'advisory' and l.granted and l.objsubid = 1
               and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1, 0))",
    );
    let held: bool = held.bind(replica.consumer()).fetch_one(&mut *owner).await?;
    ensure!(held, "nobody keeps {} up: run {service} with EVENTS_VIA=feed or kafka", replica.table());
    let parked = format!("select count(*) from {}", replica.parked_events());
    let parked: i64 = sqlx::query_scalar(AssertSqlSafe(parked)).fetch_one(owner).await?;
    ensure!(
        parked == 0,
        "{parked} events are parked in {}: see why there, and try them again with `{service} replica retry`",
        replica.parked_events()
    );
    Ok(())
}

/// View and rule change together. Whoever reads the view meanwhile waits for a moment, and sees the one or the other; with
/// `copy`, the one is then what the other was, and nobody is taken back to where the events had not come yet.
async fn switch(owner: &mut PgConnection, definition: &'static str, copy: Option<(&'static str, &str)>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let mut transaction = owner.begin().await?;
        transaction.execute(AssertSqlSafe(format!("set local lock_timeout = '{LOCK_TIMEOUT}'"))).await?;
        match transaction.execute(definition).await {
            Ok(_) => {
                if let Some((copy, horizon)) = copy {
                    sqlx::query(copy).bind(horizon).execute(&mut *transaction).await?;
                }
                return Ok(transaction.commit().await?);
            }
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => transaction.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    let blockers = sqlx::query_scalar::<_, String>(
        "select format('process %s (%s), for %s', pid, coalesce(nullif(application_name, ''), usename), now() - xact_start)
         from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and xact_start < now() - interval '1 second'
         order by xact_start",
    );
    let blockers = blockers.fetch_all(owner).await?;
    bail!(
        "the view was in use all the time; nothing was changed. Transactions that have been open for long: {}",
        if blockers.is_empty() { "none".to_owned() } else { blockers.join("; ") }
    );
}
