//! Runs `pg_dump` and `pg_restore`. They know every kind of object of every version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::endpoint::Endpoint;
use crate::moving::roles;
use crate::names::Qualified;

/// Where Linux packages install the client programs.
const PACKAGES: &str = "/usr/lib/postgresql";

/// An object of the catalog: class and oid.
pub type Object = (i64, i64);

/// An entry of an archive's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the archive.
    pub number: i64,
    /// The object that it creates. The class is 0 for an entry without an object of its own, such as a comment.
    pub object: Object,
    /// The numbers of the entries that it depends on.
    pub depends: Vec<i64>,
    /// Whether it comes after the rows, as `pg_dump` orders them.
    pub is_post_data: bool,
    line: String,
}

impl Entry {
    /// Whether it grants or revokes rights.
    pub fn is_acl(&self) -> bool {
        self.line.split_whitespace().nth(3) == Some("ACL")
    }

    /// Whether it attaches a partition to its table.
    pub fn attaches(&self) -> bool {
        let mut words = self.line.split_whitespace().skip(3);
        (words.next(), words.next()) == (Some("TABLE"), Some("ATTACH"))
    }

    pub(super) fn parse(line: &str, is_post_data: bool) -> Option<Self> {
        let mut words = line.split_whitespace();
        let number = words.next()?.strip_suffix(';')?.parse().ok()?;
        let object = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { number, object, depends: Vec::new(), is_post_data, line: line.to_owned() })
    }
}

/// Finds a `pg_dump` of the server's major version or a newer one, with the `pg_restore` beside it.
///
/// # Errors
/// If there is none: which program is missing, and where it was searched.
pub async fn find(version: i32) -> Result<PathBuf> {
    for program in places_of("pg_dump") {
        let Ok(output) = Command::new(&program).arg("--version").output().await else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = text.split_whitespace().find_map(|word| word.split('.').next()?.parse::<i32>().ok());
        if major.is_some_and(|major| major >= version) {
            let beside = program.with_file_name("pg_restore");
            ensure!(
                beside.is_file(),
                "pg_restore: not beside {}: install all of Postgres' client programs",
                program.display()
            );
            return Ok(program);
        }
    }
    bail!(
        "pg_dump: no version {version} or newer in POSTGRES_BIN_DIR, PATH and {PACKAGES}: install Postgres' client programs"
    )
}

/// Finds psql, of whatever version.
///
/// # Errors
/// If there is none: where it was searched.
pub fn find_psql() -> Result<PathBuf> {
    let missing = || format!("psql: not in POSTGRES_BIN_DIR, PATH and {PACKAGES}: install Postgres' client programs");
    places_of("psql").into_iter().next().with_context(missing)
}

/// Where a program is, in the order of preference.
fn places_of(program: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("POSTGRES_BIN_DIR").map(PathBuf::from).into_iter().collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let packages = std::fs::read_dir(PACKAGES).into_iter().flatten().flatten();
    let mut packages: Vec<PathBuf> = packages.map(|entry| entry.path().join("bin")).collect();
    packages.sort();
    folders.extend(packages.into_iter().rev());
    folders.iter().map(|folder| folder.join(program)).filter(|program| program.is_file()).collect()
}

/// Dumps definitions into an archive.
pub async fn dump(pg_dump: &Path, url: &str, archive: &Path, choice: &[String]) -> Result<()> {
    let mut command = Command::new(pg_dump);
    command.args(["--schema-only", "--format=custom", "--exclude-schema=splitctl", "--no-publications"]);
    command.args(["--no-subscriptions", "--no-security-labels", "--no-tablespaces", "--lock-wait-timeout=10s"]);
    command.arg("--file").arg(archive).args(choice);
    run(command, url).await.map(drop)
}

/// The statements that create one relation, with its comments, indexes, rules and triggers, without its owner and rights.
pub async fn definition(pg_dump: &Path, url: &str, relation: &Qualified, version: i32) -> Result<String> {
    let mut command = Command::new(pg_dump);
    command.args(["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--no-security-labels"]);
    command.args(["--lock-wait-timeout=10s", &format!("--table={}", relation.sql())]);
    let text = String::from_utf8(run(command, url).await?).context("pg_dump: a definition is not UTF-8")?;
    let kept = text.split_inclusive('\n').filter(|line| is_for_server(line, version));
    Ok(kept.collect())
}

/// Restores a section of an archive into a database: `pre-data` or `post-data`. Returns the objects that the server cannot
/// create, each with the reason. The others are created. `options` are settings of the session.
///
/// # Errors
/// If the database does not answer, or the archive cannot be read.
pub async fn restore_into(pg_dump: &Path, url: &str, archive: &Path, section: &str, options: &str) -> Result<Vec<String>> {
    let mut command = restore(pg_dump);
    command.arg(format!("--section={section}")).env("LC_ALL", "C");
    connect(&mut command, url, &[], options)?;
    let output = command.arg(archive).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !said.contains("errors ignored on restore") {
        bail!("pg_restore failed: {}", said.trim());
    }
    Ok(refused(&said))
}

/// Reads what `pg_restore` says: an error, and below it the first line of the statement that met it.
fn refused(said: &str) -> Vec<String> {
    let (mut why, mut refused) = ("", Vec::new());
    for line in said.lines() {
        if let Some((_, error)) = line.split_once("could not execute query: ") {
            why = error.split_once(':').map_or(error, |(_, why)| why.trim());
        } else if let Some(statement) = line.strip_prefix("Command was: ") {
            // A setting of a newer server is no object.
            if !statement.starts_with("SET transaction_timeout") {
                refused.push(format!("`{statement} …`: {why}"));
            }
        }
    }
    refused
}

/// Tries whether `pg_dump` reaches a database and may read its catalog.
pub async fn try_connection(pg_dump: &Path, url: &str) -> Result<()> {
    let mut command = Command::new(pg_dump);
    command.args(["--schema-only", "--exclude-schema=*", "--lock-wait-timeout=10s"]);
    run(command, url).await.map(drop)
}

/// Settings that the role or the database may have otherwise, and that a dump depends on.
const SETTINGS: &str = "-c statement_timeout=0 -c lock_timeout=0 -c quote_all_identifiers=off \
     -c standard_conforming_strings=on -c client_encoding=UTF8";

/// Runs `pg_dump` on a database.
async fn run(mut command: Command, url: &str) -> Result<Vec<u8>> {
    connect(&mut command, url, &[], "")?;
    succeed(command.stdin(Stdio::null()).kill_on_drop(true).output().await?, "pg_dump")
}

/// Has a program connect as splitctl does, with these parameters and settings besides.
pub fn connect(command: &mut Command, url: &str, parameters: &[(&str, &str)], settings: &str) -> Result<()> {
    let mut endpoint = Endpoint::of_this_process(url)?;
    for (name, value) in parameters {
        endpoint.set(name, value);
    }
    // Variables that sqlx does not read would lead elsewhere.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    // Everybody on the machine can read arguments, so the password is passed by the environment.
    if let Some(password) = endpoint.take("password") {
        command.env("PGPASSWORD", password);
    }
    let of_url = endpoint.take("options").unwrap_or_default();
    command.env("PGOPTIONS", format!("{of_url} {SETTINGS} {settings}"));
    command.arg("--no-password").arg("--dbname").arg(endpoint.connection_string());
    Ok(())
}

/// Reads an archive's table of contents, in the order of the archive. `215; 1259 16390 TABLE public users postgres` is the
/// table with oid 16390, and `; depends on: 6 12` may follow.
pub async fn contents(pg_dump: &Path, archive: &Path) -> Result<Vec<Entry>> {
    let list = async |options: &[&str]| {
        let listed = restore(pg_dump).args(options).arg("--list").arg(archive).output().await?;
        anyhow::Ok(String::from_utf8_lossy(&succeed(listed, "pg_restore")?).into_owned())
    };
    let later = list(&["--section=post-data"]).await?;
    let later: BTreeSet<i64> = later.lines().filter_map(|line| Some(Entry::parse(line, true)?.number)).collect();
    let mut entries = Vec::<Entry>::new();
    for line in list(&["--verbose"]).await?.lines() {
        if let Some((_, numbers)) = line.split_once("depends on:") {
            let numbers = numbers.split_whitespace().filter_map(|number| number.parse::<i64>().ok());
            entries.last_mut().context("pg_restore: the list begins with a dependency")?.depends.extend(numbers);
        } else if let Some(mut entry) = Entry::parse(line, false) {
            entry.is_post_data = later.contains(&entry.number);
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The statements of some entries of an archive, byte by byte, for a server of this version. `owned_by` maps roles to those
/// that take their place.
pub async fn statements(
    pg_dump: &Path,
    archive: &Path,
    chosen: &[&Entry],
    version: i32,
    owned_by: &BTreeMap<String, String>,
) -> Result<String> {
    let Some(first) = chosen.first() else { return Ok(String::new()) };
    let lines: Vec<&str> = chosen.iter().map(|entry| entry.line.as_str()).collect();
    // Several lists of one archive may be read at once.
    let list = archive.with_extension(format!("{}.list", first.number));
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let mut command = restore(pg_dump);
    command.args(["--file=-", "--use-list"]).arg(&list).arg(archive);
    let text = succeed(command.output().await?, "pg_restore")?;
    let text = String::from_utf8(text).context("pg_restore: a definition is not UTF-8")?;
    // A literal may hold any line end, so lines keep theirs.
    let kept: String = text.split_inclusive('\n').filter(|line| is_for_server(line, version)).collect();
    Ok(roles::on_target(&kept, owned_by))
}

/// Leaves out commands of psql, and a setting that older servers do not know.
fn is_for_server(line: &str, version: i32) -> bool {
    let of_psql = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    let unknown = version < 17 && line.starts_with("SET transaction_timeout");
    !(of_psql || unknown)
}

fn restore(pg_dump: &Path) -> Command {
    let mut command = Command::new(pg_dump.with_file_name("pg_restore"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn succeed(output: Output, program: &str) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
}
