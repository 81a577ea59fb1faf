//! Compares the tables with a key: several workers take chunk after chunk, and then the chunks that differ.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;
use futures_util::future::try_join_all;
use sqlx::PgConnection;
use tokio::sync::{Mutex, MutexGuard};

use super::Report;
use super::chunk::{Chunk, Chunks};
use super::moment::Moment;
use super::rows::{self, Suspects};
use super::sides::{Pair, Sides};
use crate::moving::progress::Progress;
use crate::moving::relations::Table;

/// How often rows that change are compared before a lock holds writers up.
const ROUNDS: u32 = 20;
/// How many chunks are compared row by row at a time: each has its keys in memory, twice.
const AT_ONCE: usize = 2;

/// The chunks that differ, each with its table.
pub type Differing<'a> = VecDeque<(&'a Table, Chunk)>;

/// Compares tables by the hashes of their chunks. Returns the chunks that differ.
pub async fn compare<'a>(
    report: &mut Report,
    pairs: &mut [Pair],
    tables: &[&'a Table],
    size: u32,
    progress: &Progress,
) -> Result<Differing<'a>> {
    let queue = Queue { tables: tables.iter().map(|table| Mutex::new(Chunks::new(table, size))).collect() };
    let shared = RefCell::new((&mut report.rows, VecDeque::new()));
    try_join_all(pairs.iter_mut().map(async |pair| {
        while let Some((table, chunk)) = queue.next(&mut pair.from).await? {
            let (here, there) = tokio::join!(chunk.sum(&mut pair.from, table), chunk.sum(&mut pair.to, table));
            let (here, there) = (here?, there?);
            let (rows, differing) = &mut *shared.borrow_mut();
            **rows += here.rows.unsigned_abs();
            progress.report(**rows, None);
            if here != there {
                differing.push_back((table, chunk));
            }
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(shared.into_inner().1)
}

/// Compares these chunks row by row.
pub async fn compare_again(
    report: &mut Report,
    sides: &Sides<'_>,
    pairs: &mut [Pair],
    differing: Differing<'_>,
    deadline: Instant,
) -> Result<()> {
    let left = RefCell::new(differing);
    let report = RefCell::new(report);
    let next = || left.borrow_mut().pop_front();
    try_join_all(pairs.iter_mut().take(AT_ONCE).map(async |pair| {
        while let Some((table, chunk)) = next() {
            compare_rows(&report, sides, pair, table, chunk, deadline).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

/// Compares a chunk row by row until each row is equal or proven different. Rows that change all the time are compared at a
/// moment without writes. If no lock is granted for that, it tries until the deadline.
async fn compare_rows(
    report: &RefCell<&mut Report>,
    sides: &Sides<'_>,
    pair: &mut Pair,
    table: &Table,
    chunk: Chunk,
    deadline: Instant,
) -> Result<()> {
    let mut pending = Suspects::Chunk(chunk);
    loop {
        for _ in 0..ROUNDS {
            let found = rows::compare(&mut pair.from, &mut pair.to, sides.owner_name, table, &pending).await?;
            report.borrow_mut().add(table, found.proven);
            if found.changed.is_empty() {
                return Ok(());
            }
            pending = Suspects::Rows(found.changed);
        }
        if let Some(mut moment) = Moment::take_without_writes(sides, pair, table).await? {
            let proven = rows::compare_at(&mut moment.holders, table, &pending).await?;
            report.borrow_mut().add(table, proven);
            return Ok(());
        }
        if Instant::now() > deadline {
            report.borrow_mut().unproven += pending.count() as u64;
            return Ok(());
        }
    }
}

/// The tables whose chunks are compared.
struct Queue<'a> {
    tables: Vec<Mutex<Chunks<'a>>>,
}

impl<'a> Queue<'a> {
    /// The next chunk of a table, as a rule of one whose next chunk no other worker looks for.
    async fn next(&self, connection: &mut PgConnection) -> Result<Option<(&'a Table, Chunk)>> {
        let free = self.tables.iter().filter_map(|chunks| chunks.try_lock().ok()).find(|chunks| !chunks.is_done());
        let chunks = match free {
            Some(chunks) => Some(chunks),
            None => self.wait().await,
        };
        let Some(mut chunks) = chunks else { return Ok(None) };
        let table = chunks.table;
        Ok(chunks.next(connection).await?.map(|chunk| (table, chunk)))
    }

    async fn wait(&self) -> Option<MutexGuard<'_, Chunks<'a>>> {
        for chunks in &self.tables {
            let chunks = chunks.lock().await;
            if !chunks.is_done() {
                return Some(chunks);
            }
        }
        None
    }
}
