//! Runs `splitctl` and its peer, and measures them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dev::postgres::Cluster;
use tempfile::TempDir;
use tokio::process::Command;

/// How often the memory of a process is read.
const LOOK: Duration = Duration::from_millis(20);

/// `splitctl` with a manifest.
pub struct Splitctl {
    program: PathBuf,
    folder: TempDir,
    clients: PathBuf,
}

/// A command that has ended.
pub struct Ran {
    /// How long it took.
    pub seconds: f64,
    /// The most memory that it had, in bytes.
    pub peak: u64,
    /// What it printed.
    pub output: String,
}

impl Splitctl {
    /// The manifest of a move of the tables `t1` to `tN`.
    pub fn new(programs: &Path, source: &Cluster, target: &Cluster, tables: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let names: Vec<String> = (1..=tables).map(|n| format!("\"t{n}\"")).collect();
        let manifest = format!(
            "source = \"{}\"\n[owners.shop]\nrole = \"app\"\ntables = [{}]\ntarget = \"{}\"\n",
            source.url("bench"),
            names.join(", "),
            target.url("bench")
        );
        std::fs::write(folder.path().join("split.toml"), manifest)?;
        let clients = source.client("pg_dump")?.parent().context("a folder")?.to_owned();
        Ok(Self { program: programs.join("splitctl"), folder, clients })
    }

    /// Runs a command, which must succeed.
    pub async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.folder.path()).env("POSTGRES_BIN_DIR", &self.clients);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{} cannot be run", self.program.display()))?;
        let (id, mut peak) = (child.id(), 0);
        let ending = child.wait_with_output();
        tokio::pin!(ending);
        let ended = loop {
            tokio::select! {
                ended = &mut ending => break ended?,
                () = tokio::time::sleep(LOOK) => peak = peak.max(memory(id)),
            }
        };
        let output = String::from_utf8_lossy(&ended.stdout).into_owned();
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "splitctl {}: {said}{output}", arguments.join(" "));
        Ok(Ran { seconds: started.elapsed().as_secs_f64(), peak, output })
    }
}

/// The memory of a process in bytes; 0 where it cannot be read.
#[cfg(target_os = "linux")]
fn memory(id: Option<u32>) -> u64 {
    let process = id.and_then(|id| procfs::process::Process::new(i32::try_from(id).ok()?).ok());
    let status = process.and_then(|process| process.status().ok());
    status.and_then(|status| status.vmhwm).unwrap_or_default() << 10
}

#[cfg(not(target_os = "linux"))]
fn memory(_: Option<u32>) -> u64 {
    0
}

/// Copies a database by a dump that is restored while it is made. Returns the seconds.
pub async fn dump_and_restore(cluster: &Cluster, from: &str, to: &str) -> Result<f64> {
    let started = Instant::now();
    let mut dump = Command::new(cluster.client("pg_dump")?);
    let mut dump = dump.arg(from).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let rows: Stdio = dump.stdout.take().context("a pipe")?.try_into()?;
    let mut restore = Command::new(cluster.client("psql")?);
    let restored = restore.args(["--quiet", "--no-psqlrc", to]).stdin(rows).stdout(Stdio::null()).status().await?;
    ensure!(restored.success() && dump.wait().await?.success(), "pg_dump | psql failed");
    Ok(started.elapsed().as_secs_f64())
}
