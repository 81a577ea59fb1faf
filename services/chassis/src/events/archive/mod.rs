//! `… events archive`: moves obsolete events from a service's log to files.
//!
//! Up to a mark, the log keeps only the newest event of each subject, which carries the whole state. A run moves the mark.
//! It writes each event that this makes obsolete as one line of JSON: the CloudEvent that the feed had. A batch is deleted
//! by the transaction that returns it, and that transaction commits after the lines are on disk. So a crash at any point
//! leaves every event in the log, in a file, or in both.

pub(super) mod file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};

use super::event::{CloudEvent, Position};
use super::progress::Progress;
use super::read_after::ReadAfter;
use super::store::{EventStore, FeedEvent};
use crate::error::chain;

pub use file::{ARCHIVED, ArchiveFile, Archived, Obsolete};

/// The most events that the mark passes in one transaction.
const BATCH: i32 = 1000;
/// The youngest event that may be archived. The steps of younger ones belong to every reader.
const YOUNGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a service can do with its own log on command.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Move old events that a newer one of the same subject has made obsolete from the log to a file. Exit code: 0 if all
    /// old events were considered, 1 if a broker has not confirmed some of them yet, 2 after an error
    Archive(Options),
}

/// The flags of `events archive`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How old an event must be, such as `400d`
    #[arg(long, value_parser = age)]
    older_than: Duration,
    /// The folder for the archive. Each run that moves an event writes a new file of JSON lines there
    #[arg(long, required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Count the events, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs a command on the service's own log.
///
/// # Errors
/// Why it stopped before the end.
pub async fn run<S: EventStore>(store: &S, Command::Archive(options): &Command) -> Result<ExitCode, String> {
    let now = store.now().await.map_err(|error| chain(&error))?;
    let older_than = now - chrono::TimeDelta::from_std(options.older_than).map_err(|error| error.to_string())?;
    let mark = match &options.to {
        Some(folder) if !options.dry_run => archive(store, older_than, folder).await?,
        _ => count(store, older_than).await?,
    };
    let position: Position =
        mark.parse().map_err(|_| format!("the cursor `{ARCHIVED}` is not a position of the log: {mark}"))?;
    let next = store.feed(position, 1, ReadAfter::NOW).await.map_err(|error| chain(&error))?;
    let Some(held) = next.into_iter().map(FeedEvent::into_event).find(|event| event.occurred_at < older_than) else {
        return Ok(ExitCode::SUCCESS);
    };
    let CloudEvent { id, time, .. } = held.publish(S::SOURCE);
    let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    println!(
        "event {id} of {time} and those after it stay: the broker has not confirmed it yet. Start the relay, and repeat"
    );
    Ok(ExitCode::FAILURE)
}

/// Archives batch by batch: up to where the log is archived.
async fn archive<S: EventStore>(store: &S, older_than: DateTime<Utc>, folder: &Path) -> Result<String, String> {
    let mut file = ArchiveFile::new(folder, S::SERVICE);
    let (mut mark, mut moved) = (find_mark(store).await?, 0);
    let progress = Progress::new("events");
    loop {
        let batch = store.archive(older_than, BATCH, &mut file).await.map_err(|error| chain(&error))?;
        let batch = batch.map_err(|error| format!("{}: {error}", file.path().unwrap_or(folder).display()))?;
        moved += batch.events as u64;
        progress.at(moved);
        if batch.mark == mark {
            break;
        }
        mark = batch.mark;
    }
    progress.finish();
    match file.path() {
        Some(path) => println!("{moved} events moved from the log to {}", path.display()),
        None => println!("0 events moved from the log: none is obsolete and old enough"),
    }
    Ok(mark)
}

/// Counts what [`archive`] would move: up to where it would archive the log.
async fn count<S: EventStore>(store: &S, older_than: DateTime<Utc>) -> Result<String, String> {
    let (mut mark, mut obsolete) = (find_mark(store).await?, 0);
    loop {
        let batch = store.obsolete(&mark, older_than, BATCH).await.map_err(|error| chain(&error))?;
        let Some(next) = batch.mark else { break };
        obsolete += batch.events;
        mark = next;
    }
    println!("{obsolete} events would be moved from the log");
    Ok(mark)
}

async fn find_mark<S: EventStore>(store: &S) -> Result<String, String> {
    let mark = store.find_cursor(ARCHIVED).await.map_err(|error| chain(&error))?;
    Ok(mark.unwrap_or_else(|| Position::default().to_string()))
}

fn age(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(age) if age >= YOUNGEST => Ok(age),
        _ => Err("must be a time of at least 1d, such as 400d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn young_events_are_never_archived() {
        for right in ["1d", "24h", "400d", "2years"] {
            age(right).expect(right);
        }
        for wrong in ["", "0s", "23h 59m", "10", "-400d", "a year"] {
            age(wrong).expect_err(wrong);
        }
    }
}
