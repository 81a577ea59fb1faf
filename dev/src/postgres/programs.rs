//! Chooses the server programs: the ones that a variable names, the machine's, or a download.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::download::{self, DownloadError};

/// The oldest major version that the project works with.
const OLDEST: u32 = 15;
/// The version that is downloaded to a machine without Postgres.
const NEWEST: u32 = 18;

/// Where packages put the server programs. `*` stands for the version.
const PLACES: [&str; 7] = [
    "/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
    "/usr/pgsql-*/bin",                                   // the project's RPMs
    "/usr/libexec/postgresql*",                           // Alpine
    "/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew
    "/usr/local/opt/postgresql@*/bin",                    // Homebrew on Intel
    "/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
    "/opt/local/lib/postgresql*/bin",                     // MacPorts
];

/// A folder that holds `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
    major: u32,
}

/// There are no server programs to run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The variable names a folder without them.
    #[error("POSTGRES_BIN_DIR: {0} has no initdb and postgres of version {OLDEST} or newer")]
    Folder(PathBuf),
    /// The variable has another value than a major version.
    #[error("POSTGRES_VERSION must be a major version from {OLDEST} on, such as {NEWEST}, not `{0}`")]
    Version(String),
    /// The machine has none, and the download failed.
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// A client program is missing, or too old for the server.
#[derive(Debug, thiserror::Error)]
#[error(
    "{program} of version {major} or newer was not found: install it \
     (apt install postgresql-client-{major}, brew install postgresql@{major})"
)]
pub struct MissingClient {
    program: String,
    major: u32,
}

impl Programs {
    /// The programs in `POSTGRES_BIN_DIR`; else a download of `POSTGRES_VERSION`; else the programs on the machine: those of
    /// `PATH`, of `pg_config`, or the newest in the packages' folders; else a download.
    ///
    /// # Errors
    /// [`ProgramsError`] says which of these failed.
    pub fn find() -> Result<Self, ProgramsError> {
        let (folder, version) = (env::var_os("POSTGRES_BIN_DIR"), env::var("POSTGRES_VERSION").ok());
        Self::choose(folder.as_deref().map(Path::new), version.as_deref(), Self::installed, Self::download)
    }

    /// A downloaded version, whatever the machine has.
    ///
    /// # Errors
    /// [`DownloadError`]
    pub fn download(major: u32) -> Result<Self, DownloadError> {
        Ok(Self::new(&download::programs(major)?, major))
    }

    fn choose(
        folder: Option<&Path>,
        version: Option<&str>,
        installed: impl FnOnce() -> Option<Self>,
        download: impl FnOnce(u32) -> Result<Self, DownloadError>,
    ) -> Result<Self, ProgramsError> {
        if let Some(folder) = folder {
            return Self::in_folder(folder).ok_or_else(|| ProgramsError::Folder(folder.to_owned()));
        }
        let wanted = version.filter(|version| !version.is_empty()).map(|version| {
            let major = version.parse().ok().filter(|&major| major >= OLDEST);
            major.ok_or_else(|| ProgramsError::Version(version.to_owned()))
        });
        let major = match wanted {
            Some(major) => major?,
            None => match installed() {
                Some(programs) => return Ok(programs),
                None => NEWEST,
            },
        };
        Ok(download(major)?)
    }

    pub(super) fn new(folder: &Path, major: u32) -> Self {
        Self { folder: folder.to_owned(), major }
    }

    fn installed() -> Option<Self> {
        let newest = |place: &&str| folders(place).filter_map(|folder| Self::in_folder(&folder)).max_by_key(Self::major);
        at_hand().find_map(|folder| Self::in_folder(&folder)).or_else(|| PLACES.iter().find_map(newest))
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        // A link leads to the folder that has the client programs, too.
        let initdb = folder.join("initdb").canonicalize().ok().filter(|initdb| initdb.is_file())?;
        let folder = initdb.parent()?;
        let major = version_of(&folder.join("postgres"))?;
        (major >= OLDEST).then(|| Self::new(folder, major))
    }

    /// The path of a program that belongs to the server.
    pub fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// The path of a client program: the server's own, or one on the machine. Some downloads have no client programs.
    /// `psql` works with any server; the others must be at least as new as the server.
    ///
    /// # Errors
    /// If there is none.
    pub fn client(&self, program: &str) -> Result<PathBuf, MissingClient> {
        let folders = [self.folder.clone()].into_iter().chain(at_hand()).chain(PLACES.into_iter().flat_map(folders));
        let oldest = if program == "psql" { OLDEST } else { self.major };
        let mut found = folders.map(|folder| folder.join(program)).filter(|path| path.is_file());
        found
            .find(|path| version_of(path).is_some_and(|major| major >= oldest))
            .ok_or_else(|| MissingClient { program: program.to_owned(), major: oldest })
    }

    /// Their major version.
    pub fn major(&self) -> u32 {
        self.major
    }
}

/// The folders of `PATH`, and the one that `pg_config` prints.
fn at_hand() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter().chain(from_pg_config())
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

fn version_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `15` from `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The folders that match a path with one `*` in it.
fn folders(place: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let (before, after) = place.split_once('*').unwrap_or((place, ""));
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("/", before));
    let (prefix, after) = (prefix.to_owned(), after.trim_start_matches('/').to_owned());
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(move |path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(&prefix)))
        .map(move |path| if after.is_empty() { path } else { path.join(&after) })
}

#[cfg(test)]
mod tests {
    use super::super::download::tests::put_programs;
    use super::*;

    #[test]
    fn the_major_version_is_read_off_every_package() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres: command not found"), None);
    }

    #[test]
    fn a_named_folder_goes_before_a_named_version_before_the_machine_before_a_download() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |name: &str| place.path().join(name);
        put_programs(&path("named"), "16.3");
        let installed = || Some(Programs::new(&path("installed"), 15));
        let download = |major| Ok(Programs::new(&path(&format!("download of {major}")), major));
        let chosen = |folder: Option<&str>, version, is_installed: bool| {
            let folder = folder.map(path);
            let installed = || is_installed.then(installed).flatten();
            let programs = Programs::choose(folder.as_deref(), version, installed, download);
            programs.map(|programs| (programs.folder.file_name().expect("a name").to_owned(), programs.major))
        };
        let expect = |chosen: Result<_, ProgramsError>, name: &str, major| {
            assert_eq!(chosen.expect("programs"), (name.into(), major));
        };
        expect(chosen(Some("named"), Some("17"), true), "named", 16);
        expect(chosen(None, Some("17"), true), "download of 17", 17);
        expect(chosen(None, None, true), "installed", 15);
        expect(chosen(None, Some(""), true), "installed", 15);
        expect(chosen(None, None, false), "download of 18", 18);
        let message = chosen(Some("elsewhere"), Some("17"), true).expect_err("an empty folder").to_string();
        assert!(message.contains("POSTGRES_BIN_DIR") && message.contains("elsewhere"), "{message}");
        for version in ["14", "18.6", "newest"] {
            let message = chosen(None, Some(version), true).expect_err("no version").to_string();
            assert!(message.contains("POSTGRES_VERSION") && message.contains(version), "{message}");
        }
    }

    #[test]
    fn a_client_program_is_the_servers_own_or_one_that_is_not_older() {
        let place = tempfile::tempdir().expect("a folder");
        put_programs(place.path(), "18.1");
        let newer_than_any = Programs::new(place.path(), 99);
        let message = newer_than_any.client("pg_dump").expect_err("none is so new").to_string();
        assert!(message.starts_with("pg_dump of version 99 or newer was not found"), "{message}");
        put_programs(place.path(), "99.0");
        assert_eq!(newer_than_any.client("postgres").expect("its own"), place.path().join("postgres"));
    }
}
