//! The file of a run of the archive, and what the statements say of a batch.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::Utc;

use crate::events::event::CloudEvent;

/// The cursor that says up to where the log is archived, in the service's table of cursors.
pub const ARCHIVED: &str = "own log, archived";
/// A batch that was archived.
#[derive(Debug)]
pub struct Archived {
    /// How many events were moved.
    pub events: usize,
    /// Up to where the log is archived now.
    pub mark: String,
}

/// What the next batch would do.
#[derive(Debug)]
pub struct Obsolete {
    /// How many events it would move.
    pub events: i64,
    /// Where it would move the mark; `None` if it would not.
    pub mark: Option<String>,
}

/// The file that one run writes.
#[derive(Debug)]
pub struct ArchiveFile {
    folder: PathBuf,
    service: &'static str,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// The length with the batches that are committed.
    kept: u64,
    /// The length with the batch that is not committed yet.
    written: u64,
}

impl ArchiveFile {
    /// A file in `folder`, which the first event creates.
    pub fn new(folder: &Path, service: &'static str) -> Self {
        Self { folder: folder.to_owned(), service, open: None }
    }

    /// Writes events to the disk, in place of those that were written but not kept, and compares what it reads back.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&mut self, events: impl Iterator<Item = CloudEvent>) -> io::Result<()> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, &event)?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::create(&self.folder, self.service)?),
        };
        let written = open.append(&lines);
        if written.is_err() {
            // What is left of the lines is in the log, too.
            let _ = open.file.set_len(open.kept);
        }
        written
    }

    /// Keeps what was written: its transaction is committed.
    pub fn keep(&mut self) {
        if let Some(open) = &mut self.open {
            open.kept = open.written;
        }
    }

    /// The file; `None` before the first event.
    pub fn path(&self) -> Option<&Path> {
        self.open.as_ref().map(|open| open.path.as_path())
    }
}

impl Open {
    fn create(folder: &Path, service: &str) -> io::Result<Self> {
        let path = folder.join(format!("{service}-events-{}.jsonl", Utc::now().format("%Y%m%dT%H%M%S%.6fZ")));
        // The events contain personal data.
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // The file's name must be on the disk, too.
        File::open(folder)?.sync_all()?;
        Ok(Self { path, file, kept: 0, written: 0 })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.set_len(self.kept)?;
        self.file.seek(SeekFrom::Start(self.kept))?;
        self.file.write_all(lines)?;
        self.file.sync_all()?;
        self.file.seek(SeekFrom::Start(self.kept))?;
        let mut stored = Vec::with_capacity(lines.len());
        self.file.read_to_end(&mut stored)?;
        if stored != lines {
            return Err(io::Error::other("it does not contain what was written"));
        }
        self.written = self.kept + lines.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;
    use crate::events::LoggedEvent;

    fn event(version: i64) -> CloudEvent {
        let data = to_raw_value(&version).expect("JSON");
        let (subject, r#type) = (Uuid::nil(), "thing.happened.v1".to_owned());
        let (occurred_at, actor, traceparent) = (DateTime::UNIX_EPOCH, None, None);
        LoggedEvent { subject, version, r#type, data, occurred_at, actor, traceparent }.publish("/things")
    }

    #[test]
    fn what_was_not_kept_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = ArchiveFile::new(folder.path(), "things");
        file.write([].into_iter()).expect("written");
        assert_eq!(folder.path().read_dir().expect("a folder").count(), 0, "without an event there is no file");
        for (version, kept) in [(1, false), (2, true), (3, false), (4, true), (5, false)] {
            file.write([event(version), event(version)].into_iter()).expect("written");
            if kept {
                file.keep();
            }
        }
        let text = std::fs::read_to_string(file.path().expect("a file")).expect("a file");
        let ids = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["data"].clone());
        assert_eq!(ids.collect::<Vec<_>>(), [2, 2, 4, 4, 5, 5]);
    }
}
