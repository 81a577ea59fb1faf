//! Finds the server programs, which packages often keep outside of PATH.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version that will do.
const OLDEST: u32 = 15;

/// Where packages put the server programs, a `*` standing for the version.
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

/// No server programs were found.
#[derive(Debug, thiserror::Error)]
#[error(
    "no Postgres server programs of version {OLDEST} or newer were found (POSTGRES_BIN_DIR, PATH, pg_config, and where packages put them)"
)]
pub struct NotFound;

impl Programs {
    /// Those in `POSTGRES_BIN_DIR` if that is set; else the newest ones of the first place that has any: `PATH`,
    /// `pg_config`, the packages' places.
    ///
    /// # Errors
    /// If there are none.
    pub fn find() -> Result<Self, NotFound> {
        if let Some(named) = env::var_os("POSTGRES_BIN_DIR") {
            return Self::in_folder(Path::new(&named)).ok_or(NotFound);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let at_hand = env::split_paths(&path).chain(from_pg_config()).find_map(|folder| Self::in_folder(&folder));
        let newest = |place: &&str| folders(place).filter_map(|folder| Self::in_folder(&folder)).max_by_key(Self::major);
        at_hand.or_else(|| PLACES.iter().find_map(newest)).ok_or(NotFound)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        let version = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        let major = major(&String::from_utf8_lossy(&version.stdout))?;
        (major >= OLDEST).then(|| Self { folder: folder.to_owned(), major })
    }

    /// The path of one of them.
    pub fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    /// Their major version.
    pub fn major(&self) -> u32 {
        self.major
    }
}

fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The folders that match a path with one `*` in it.
fn folders(place: &str) -> impl Iterator<Item = PathBuf> {
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
    use super::*;

    #[test]
    fn the_major_version_is_read_off_every_package() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres: command not found"), None);
    }
}
