//! Writers that follow a switch as the contract says: what one side refuses runs again on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dev::postgres::connect;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::task::JoinSet;

/// Four writers that write 75 times a second each.
const WRITERS: u64 = 4;
const EVERY: Duration = Duration::from_nanos(1_000_000_000 / 75);

/// Writers that run.
pub struct Load {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    writers: JoinSet<Result<Duration>>,
}

impl Load {
    /// Starts the writers. `sides` are the URLs of the source and the target.
    pub fn start(sides: &[String; 2], tables: usize) -> Self {
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            writers.spawn(write(sides.clone(), tables, number, Arc::clone(&stop), Arc::clone(&refused)));
        }
        Self { stop, refused, writers }
    }

    /// Stops them: the longest time that a write took in milliseconds, and how many were refused on both sides.
    pub async fn stop(mut self) -> Result<(f64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        while let Some(writer) = self.writers.join_next().await {
            longest = longest.max(writer.context("a writer was lost")??);
        }
        Ok((longest.as_secs_f64() * 1e3, self.refused.load(Ordering::Relaxed)))
    }
}

async fn write(
    sides: [String; 2],
    tables: usize,
    writer: u64,
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
) -> Result<Duration> {
    let mut connections = [connect(&sides[0]).await?, connect(&sides[1]).await?];
    let (mut at, mut longest) = (0, Duration::ZERO);
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let table = number % u64::try_from(tables)? + 1;
        let id = 1_000 + number * WRITERS + writer;
        let insert = format!("insert into t{table} values ({id}, 1, 'new')");
        let started = Instant::now();
        if !try_write(&mut connections[at], &insert).await? {
            at = 1 - at;
            if !try_write(&mut connections[at], &insert).await? {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        longest = longest.max(started.elapsed());
        tokio::time::sleep(EVERY.saturating_sub(started.elapsed())).await;
    }
    Ok(longest)
}

/// Returns whether this side took the row.
async fn try_write(connection: &mut PgConnection, statement: &str) -> Result<bool> {
    match connection.execute(AssertSqlSafe(statement.to_owned())).await {
        Ok(_) => Ok(true),
        Err(error) if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42501") => Ok(false),
        Err(error) => Err(error.into()),
    }
}
