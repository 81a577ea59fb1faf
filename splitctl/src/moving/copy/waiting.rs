//! Waits for the rows that the server copies, and reports the progress.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::FromRow;

use crate::exit::Refused;
use crate::moving::objects::Names;
use crate::moving::progress::Progress;
use crate::moving::relations::{self, Table};
use crate::moving::{Database, stalled, subscription};
use crate::names::Qualified;

/// How often it looks at the copy's progress.
pub const LOOK: Duration = Duration::from_millis(200);
/// The server retries a failed copy every few seconds. After this many failures the command gives up.
const FAILURES: i64 = 3;
/// How long no worker of the target may run.
const IDLE: Duration = Duration::from_secs(60);

/// Waits until the target has all rows, and reports the progress.
pub async fn wait_for_rows(
    (source, target): (&mut Database, &mut Database),
    name: &str,
    of: &Names,
    tables: &[Table],
) -> Result<()> {
    let progress = Progress::new("copying", tables.iter().map(|table| table.estimate).sum());
    let names: Vec<Qualified> = tables.iter().map(|table| table.name.clone()).collect();
    let mut worked = Instant::now();
    // Failures of an earlier run may be the reason for this one.
    let before = subscription::read_health(&mut target.connection, name).await?.failures;
    loop {
        let health = subscription::read_health(&mut target.connection, name).await?;
        if health.ready == health.tables && health.tables > 0 {
            return Ok(());
        }
        if let Err(Refused(why)) = check_worker(&health, health.failures - before, &mut worked) {
            return Err(Refused(format!("{why}. {}", stalled::explain(source, target, name, of).await?)).into());
        }
        for Done { rows, bytes } in relations::select(&mut target.connection, DONE, &names).await? {
            progress.report(rows.unsigned_abs(), Some(bytes.unsigned_abs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Refuses to wait for a copy that fails again and again, or that no worker does.
fn check_worker(health: &subscription::Health, failures: i64, worked: &mut Instant) -> Result<(), Refused> {
    if failures >= FAILURES {
        return Err(Refused(format!(
            "the target failed {failures} times to copy. The log of its server says why: a full disk, a missing right, the \
             source out of reach. Correct that and repeat the command, or run `splitctl abort`"
        )));
    }
    if health.works {
        *worked = Instant::now();
    }
    if worked.elapsed() > IDLE {
        return Err(Refused(format!(
            "the target ran no replication worker for {IDLE:?}. Check that its server reaches the source and has \
             max_logical_replication_workers left; its log says more. Repeat the command, or run `splitctl abort`"
        )));
    }
    Ok(())
}

#[derive(FromRow)]
struct Done {
    rows: i64,
    bytes: i64,
}

/// Counts the rows of a finished table by its statistics, and those of the others by the progress of their copies.
const DONE: &str = r"
    select
        coalesce(sum(greatest(s.n_tup_ins, p.tuples_processed, 0)), 0)::int8 as rows,
        coalesce(sum(pg_table_size(c.oid)), 0)::int8 as bytes
    from pg_class c
    left join pg_stat_all_tables s on s.relid = c.oid
    left join pg_stat_progress_copy p on p.relid = c.oid and p.datname = current_database()
    where c.oid = any ($1)
      and c.relkind = 'r'";
