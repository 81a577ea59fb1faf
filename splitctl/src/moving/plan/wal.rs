//! How much WAL the source writes, which the slot of a copy holds back.

use std::time::Duration;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as};

use super::Plan;
use super::Weight::{Note, Warning};
use crate::sizes::show;

/// How long it watches the WAL grow.
const MEASURED: Duration = Duration::from_secs(1);

/// Watches for a second how much WAL the source writes, in a session of its own.
pub async fn measure(mut session: PgConnection) -> Result<Rate> {
    let before: Wal = query_as(WAL).fetch_one(&mut session).await?;
    tokio::time::sleep(MEASURED).await;
    let after: Wal = query_as(WAL).fetch_one(&mut session).await?;
    let seconds = (after.at - before.at).max(0.001);
    Ok(Rate { now: ((after.bytes - before.bytes) as f64 / seconds) as u64, mean: after.mean, keeps: after.keeps })
}

/// How much WAL the source writes.
#[derive(Debug)]
pub struct Rate {
    /// Bytes a second, now.
    now: u64,
    /// Bytes a second since its statistics began.
    mean: i64,
    /// The server's own limit for a slot in bytes, if it has one.
    keeps: Option<i64>,
}

impl Rate {
    /// Adds to the plan what the slot of the copy will hold back.
    pub fn describe(&self, plan: &mut Plan, max_wal: u64) {
        let fastest = self.now.max(self.mean.unsigned_abs()).max(1);
        let patience = Duration::from_secs(max_wal / fastest);
        let text = format!(
            "the source writes {} of WAL a second now, {} on average. While rows are copied, the slot holds all of it back: \
             at the faster rate, --max-wal ({}) lasts for {}",
            show(self.now),
            show(self.mean),
            show(max_wal),
            humantime::format_duration(patience)
        );
        plan.add(Note, "wal", text);
        if let Some(keeps) = self.keeps.filter(|keeps| keeps.unsigned_abs() < max_wal) {
            let text = format!(
                "max_slot_wal_keep_size: the source gives a slot up that holds back more than {}, which is less than \
                 --max-wal ({}): raise it if the copy takes longer",
                show(keeps),
                show(max_wal)
            );
            plan.add(Warning, "wal", text);
        }
    }
}

#[derive(FromRow)]
struct Wal {
    at: f64,
    bytes: i64,
    mean: i64,
    keeps: Option<i64>,
}

const WAL: &str = r"
    select
        extract(epoch from clock_timestamp())::float8 as at,
        pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8 as bytes,
        (w.wal_bytes / greatest(extract(epoch from clock_timestamp() - w.stats_reset), 1))::int8 as mean,
        (
            select nullif(s.setting::int8, -1) * 1024 * 1024
            from pg_settings s
            where s.name = 'max_slot_wal_keep_size'
        ) as keeps
    from pg_stat_wal w";
