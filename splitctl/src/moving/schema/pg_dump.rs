//! Runs `pg_dump` and `pg_restore`. They know every kind of object of every version.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use percent_encoding::percent_decode_str;
use tokio::process::Command;

use crate::names::Qualified;

/// Where Linux packages install the client programs.
const PACKAGES: &str = "/usr/lib/postgresql";

/// An object of the catalog: class and oid.
pub type Object = (i64, i64);

/// A line of an archive's table of contents.
pub struct Entry {
    /// The object that it creates.
    pub object: Object,
    line: String,
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
    command.args(["--schema-only", "--format=custom", "--no-owner", "--no-privileges", "--no-publications"]);
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

/// Reads an archive's table of contents. `215; 1259 16390 TABLE public users postgres` is the table with oid 16390.
pub async fn contents(pg_dump: &Path, archive: &Path) -> Result<Vec<Entry>> {
    let listed = succeed(restore(pg_dump).arg("--list").arg(archive).output().await?, "pg_restore")?;
    let mut entries = Vec::new();
    for line in String::from_utf8_lossy(&listed).lines().filter(|line| !line.starts_with(';')) {
        let mut words = line.split_whitespace().skip(1).map_while(|word| word.parse::<i64>().ok());
        if let (Some(class), Some(oid)) = (words.next(), words.next()) {
            entries.push(Entry { object: (class, oid), line: line.to_owned() });
        }
    }
    Ok(entries)
}

/// The statements of some entries of an archive, for a server of this version.
pub async fn statements(pg_dump: &Path, archive: &Path, chosen: &[Entry], version: i32) -> Result<String> {
    if chosen.is_empty() {
        return Ok(String::new());
    }
    let lines: Vec<&str> = chosen.iter().map(|entry| entry.line.as_str()).collect();
    let list = archive.with_extension("list");
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let mut command = restore(pg_dump);
    command.args(["--no-owner", "--no-privileges", "--file=-", "--use-list"]).arg(&list).arg(archive);
    let text = succeed(command.output().await?, "pg_restore")?;
    let text = String::from_utf8(text).context("pg_restore: a definition is not UTF-8")?;
    let kept = text.lines().filter(|line| is_for_server(line, version));
    Ok(kept.map(|line| format!("{line}\n")).collect())
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
