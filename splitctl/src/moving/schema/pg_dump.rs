//! Runs `pg_dump` and `pg_restore`. They know every kind of object of every version.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use percent_encoding::percent_decode_str;
use tokio::process::Command;

use crate::names::{Qualified, parse_identifiers, quote_ident};

/// Where Linux packages install the client programs.
const PACKAGES: &str = "/usr/lib/postgresql";

/// An object of the catalog: class and oid.
pub type Object = (i64, i64);

/// An entry of an archive's table of contents.
#[derive(Debug, Clone)]
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

    fn parse(line: &str, is_post_data: bool) -> Option<Self> {
        let mut words = line.split_whitespace();
        let number = words.next()?.strip_suffix(';')?.parse().ok()?;
        let object = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { number, object, depends: Vec::new(), is_post_data, line: line.to_owned() })
    }
}

/// Finds a `pg_dump` of the server's major version or a newer one.
///
/// # Errors
/// If there is none: where it was searched.
pub async fn find(version: i32) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("POSTGRES_BIN_DIR").map(PathBuf::from).into_iter().collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let packages = std::fs::read_dir(PACKAGES).into_iter().flatten().flatten();
    let mut packages: Vec<PathBuf> = packages.map(|entry| entry.path().join("bin")).collect();
    packages.sort();
    folders.extend(packages.into_iter().rev());
    for program in folders.iter().map(|folder| folder.join("pg_dump")).filter(|program| program.is_file()) {
        let Ok(output) = Command::new(&program).arg("--version").output().await else { continue };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = text.split_whitespace().find_map(|word| word.split('.').next()?.parse::<i32>().ok());
        if major.is_some_and(|major| major >= version) {
            return Ok(program);
        }
    }
    bail!(
        "pg_dump: no version {version} or newer in POSTGRES_BIN_DIR, PATH and {PACKAGES}: install Postgres' client programs"
    )
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

/// Runs `pg_dump` on a database.
async fn run(mut command: Command, url: &str) -> Result<Vec<u8>> {
    // Everybody on the machine can read arguments, so the password is passed by the environment.
    let mut url = url::Url::parse(url)?;
    if let Some(password) = url.password() {
        command.env("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().as_ref());
        let _ = url.set_password(None);
    }
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if let Some((_, password)) = parameters.iter().find(|(name, _)| name == "password") {
        command.env("PGPASSWORD", password);
        url.query_pairs_mut().clear().extend_pairs(parameters.iter().filter(|(name, _)| name != "password"));
    }
    command.arg("--dbname").arg(url.as_str());
    succeed(command.stdin(Stdio::null()).output().await?, "pg_dump")
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

/// The statements of some entries of an archive, byte by byte, for a server of this version. `owners` maps roles to those
/// that take their place.
pub async fn statements(
    pg_dump: &Path,
    archive: &Path,
    chosen: &[&Entry],
    version: i32,
    owners: &BTreeMap<String, String>,
) -> Result<String> {
    if chosen.is_empty() {
        return Ok(String::new());
    }
    let lines: Vec<&str> = chosen.iter().map(|entry| entry.line.as_str()).collect();
    let list = archive.with_extension("list");
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let mut command = restore(pg_dump);
    command.args(["--file=-", "--use-list"]).arg(&list).arg(archive);
    let text = succeed(command.output().await?, "pg_restore")?;
    let text = String::from_utf8(text).context("pg_restore: a definition is not UTF-8")?;
    // A literal may hold any line end, so lines keep theirs.
    let kept = text.split_inclusive('\n').filter(|line| is_for_server(line, version));
    Ok(kept.map(|line| replace_role(line, owners)).collect())
}

/// Replaces the role at the end of a line that sets an owner, or grants or revokes rights.
fn replace_role<'a>(line: &'a str, owners: &BTreeMap<String, String>) -> Cow<'a, str> {
    let ends = [("ALTER ", " OWNER TO "), ("GRANT ", " TO "), ("REVOKE ", " FROM ")];
    let found = ends.iter().filter(|(start, _)| line.starts_with(start)).find_map(|(_, before)| {
        let (head, role) = line.rsplit_once(before)?;
        let role = parse_identifiers(role.trim_end().strip_suffix(';')?)?.pop()?;
        Some(format!("{head}{before}{};\n", quote_ident(owners.get(&role)?)))
    });
    found.map_or(Cow::Borrowed(line), Cow::Owned)
}

/// Leaves out commands of psql, and a setting that older servers do not know.
fn is_for_server(line: &str, version: i32) -> bool {
    let of_psql = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    let unknown = version < 17 && line.starts_with("SET transaction_timeout");
    !(of_psql || unknown)
}

fn restore(pg_dump: &Path) -> Command {
    let mut command = Command::new(pg_dump.with_file_name("pg_restore"));
    command.stdin(Stdio::null());
    command
}

fn succeed(output: Output, program: &str) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
}
