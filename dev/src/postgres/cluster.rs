//! A private cluster: a server on 127.0.0.1, on a free port, with a password of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::owner::{PASSWORD, command, make_folder, password, server_user};
use super::programs::{MissingClient, Programs};
use super::scram::write_verifier;
use crate::process::{Leashed, free_address, is_free};
use crate::wait::block_on;

/// How long a server may take to start, recovery after a crash included.
const START: Duration = Duration::from_secs(60);
/// How many ports to try: another process may take a free port before the server does.
const PORTS: usize = 5;
/// The superuser of a private cluster.
const SUPERUSER: &str = "postgres";

/// A private cluster. Its server ends when this value is dropped or this process ends, even by `kill -9`.
pub struct Cluster {
    programs: Programs,
    user: Option<User>,
    folder: PathBuf,
    /// Deletes the folder of a temporary cluster.
    temporary: Option<TempDir>,
    password: String,
    port: u16,
    /// The caller's, as `name=value`.
    settings: Vec<String>,
    server: Option<Leashed>,
}

impl Cluster {
    /// A cluster that leaves nothing behind. It is fast, because its commits survive a crash of the server, not of the
    /// machine.
    ///
    /// # Errors
    /// If there are no programs, or the server does not start.
    pub fn temporary() -> Result<Self> {
        Self::temporary_with(&[])
    }

    /// The same with settings such as `shared_buffers=512MB`, which override the defaults.
    ///
    /// # Errors
    /// If there are no programs, or the server does not start.
    pub fn temporary_with(settings: &[&str]) -> Result<Self> {
        let user = server_user().context("choosing the user that runs Postgres")?;
        let folder = tempfile::Builder::new().prefix("dev-postgres-").tempdir().context("making a temporary folder")?;
        let path = folder.path().to_owned();
        Self::start_new(&path, user, Some(folder), None, settings)
    }

    /// A hot standby of this one, for which a slot here keeps the WAL. `select pg_promote()` makes it a primary.
    ///
    /// # Errors
    /// If it cannot be copied, or does not start.
    pub fn standby(&self) -> Result<Self> {
        self.standby_with(&[])
    }

    /// The same with settings besides this cluster's.
    ///
    /// # Errors
    /// If it cannot be copied, or does not start.
    pub fn standby_with(&self, settings: &[&str]) -> Result<Self> {
        let user = server_user().context("choosing the user that runs Postgres")?;
        let folder = tempfile::Builder::new().prefix("dev-postgres-").tempdir().context("making a temporary folder")?;
        let path = folder.path().canonicalize().context("finding the temporary folder")?;
        make_folder(&path, user.as_ref()).with_context(|| format!("making {}", path.display()))?;
        fs::write(path.join(PASSWORD), &self.password).context("writing the server's password to a file")?;
        let mut backup = command(&self.client("pg_basebackup")?, user.as_ref());
        backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--create-slot", "--slot=standby"]);
        backup.arg("--pgdata").arg(path.join("postgres")).arg("--dbname").arg(self.url("postgres"));
        let output = backup.stdin(Stdio::null()).output().context("starting pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        // A newer pg_basebackup writes options that an older server does not know. Postgres uses the last line.
        let (port, password) = (self.port, &self.password);
        let primary = format!("host=127.0.0.1 port={port} dbname=postgres user={SUPERUSER} password={password}");
        let recovery = OpenOptions::new().append(true).open(path.join("postgres/postgresql.auto.conf"));
        recovery
            .and_then(|mut file| writeln!(file, "primary_conninfo = '{primary}'"))
            .context("writing to postgresql.auto.conf which server the standby follows")?;
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        Self::start_new(&path, user, Some(folder), None, &settings)
    }

    /// The cluster in `folder`, made now if there is none.
    ///
    /// # Errors
    /// If there are no programs, or the server does not start.
    pub fn persistent(folder: &Path) -> Result<Self> {
        let user = server_user().context("choosing the user that runs Postgres")?;
        let port = fs::read_to_string(folder.join("port")).ok().and_then(|port| port.trim().parse().ok());
        let cluster = Self::start_new(folder, user, None, port, &[])?;
        // The next start takes the same port if it can, so a psql line in a shell's history stays valid.
        fs::write(folder.join("port"), format!("{}\n", cluster.port)).context("writing the port to a file")?;
        Ok(cluster)
    }

    fn start_new(
        folder: &Path,
        user: Option<User>,
        temporary: Option<TempDir>,
        port: Option<u16>,
        settings: &[&str],
    ) -> Result<Self> {
        let programs = Programs::find()?;
        make_folder(folder, user.as_ref()).with_context(|| format!("making {}", folder.display()))?;
        // The server reports its data directory in this form.
        let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
        let password = password(&folder, user.as_ref()).context("writing the server's password to a file")?;
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut cluster = Self { programs, user, folder, temporary, password, port: 0, settings, server: None };
        cluster.init()?;
        cluster.start(port)?;
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// Makes the data folder under another name and renames it: a crash leaves nothing that looks complete.
    fn init(&self) -> Result<()> {
        if self.data().join("PG_VERSION").exists() {
            return self.check_version();
        }
        let unfinished = self.folder.join("postgres.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("deleting {}", unfinished.display()))?;
        }
        let password = match self.temporary {
            Some(_) => write_verifier(&self.folder, &self.password, self.user.as_ref())
                .context("writing the server's password to a file")?,
            None => self.folder.join(PASSWORD),
        };
        let mut initdb = command(&self.programs.path("initdb"), self.user.as_ref());
        initdb.arg("--pgdata").arg(&unfinished);
        initdb.args(["--username", SUPERUSER, "--auth=scram-sha-256", "--pwfile"]).arg(password);
        initdb.args(["--encoding=UTF8", "--no-locale", "--no-instructions"]);
        if self.temporary.is_some() {
            initdb.arg("--no-sync");
        }
        let output = initdb
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", self.programs.path("initdb").display()))?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        fs::rename(&unfinished, self.data()).context("naming the new data folder")
    }

    /// Postgres reads a data folder of its own major version only.
    fn check_version(&self) -> Result<()> {
        let made_by = fs::read_to_string(self.data().join("PG_VERSION")).context("reading PG_VERSION")?;
        let (made_by, have) = (made_by.trim(), self.programs.major());
        ensure!(
            made_by == have.to_string(),
            "{} was made by Postgres {made_by}, but the programs in use have version {have}: \
             set POSTGRES_VERSION={made_by}, or delete the folder",
            self.folder.display(),
        );
        Ok(())
    }

    /// Starts the server, on `port` if that is free.
    fn start(&mut self, port: Option<u16>) -> Result<()> {
        for attempt in 1.. {
            let wanted = port.filter(|&port| attempt == 1 && is_free(port));
            self.port = wanted.unwrap_or_else(|| free_address().port());
            self.server = Some(self.spawn()?);
            match self.wait() {
                Ok(()) => return Ok(()),
                Err(_) if attempt < PORTS && self.end_of_log().contains("could not bind") => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn spawn(&self) -> Result<Leashed> {
        let mut postgres = Command::new(self.programs.path("postgres"));
        postgres.arg("-D").arg(self.data());
        let port = format!("port={}", self.port);
        let mut settings = vec![
            "listen_addresses=127.0.0.1",
            &port,
            // A socket's path has 107 bytes at most, and the folder's may be longer.
            "unix_socket_directories=",
            "wal_level=logical",
            "max_connections=300",
            "log_min_messages=warning",
            // Tests violate constraints on purpose.
            "log_min_error_statement=panic",
        ];
        if self.temporary.is_some() {
            // Each commit still reaches the kernel, so a crash of the server alone loses none.
            settings.extend(["fsync=off", "full_page_writes=off"]);
            // `drop database` waits for each login under way. One that a test began and left at its end lasts until this.
            settings.push("authentication_timeout=15s");
        }
        // Postgres uses the last value of a setting.
        settings.extend(self.settings.iter().map(String::as_str));
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let log = File::create(self.log()).context("making the server's log")?;
        let leftover = self.temporary.as_ref().map(TempDir::path);
        let signal = if leftover.is_some() { Signal::SIGQUIT } else { Signal::SIGINT };
        Leashed::start_as(self.user.as_ref(), &postgres, signal, leftover, log)
            .with_context(|| format!("starting {}", self.programs.path("postgres").display()))
    }

    /// Waits until a server answers on the port and reports our data folder: another server may use the port.
    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        let url = self.url("postgres");
        loop {
            let answer = block_on(async || {
                let mut connection = PgConnection::connect(&url).await?;
                let data = sqlx::query_scalar::<_, String>("show data_directory").fetch_one(&mut connection).await?;
                connection.close().await?;
                Ok::<_, sqlx::Error>(data)
            });
            if answer.is_ok_and(|data| Path::new(&data) == self.data()) {
                return Ok(());
            }
            let ended = match &mut self.server {
                Some(server) => server.ended().context("watching the server")?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                bail!("Postgres did not start. The end of {}:\n{}", self.log().display(), self.end_of_log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// The URL of a database for the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// The URL of a database for `role`. All roles have one password, which keeps out other users of the machine.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The password that all roles have.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The path of a client program such as `pgbench` that is at least as new as the server.
    ///
    /// # Errors
    /// If there is none, which the message says how to change.
    pub fn client(&self, program: &str) -> Result<PathBuf, MissingClient> {
        self.programs.client(program)
    }

    /// Postgres' own process id, not its shell's.
    pub fn process_id(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Stops all processes of the server by SIGSTOP, until the value is dropped: they keep their connections and answer
    /// nothing.
    ///
    /// # Errors
    /// The system's, or if the server does not run.
    pub fn freeze(&self) -> Result<Frozen> {
        let postmaster = self.process_id().and_then(|id| i32::try_from(id).ok()).context("the server does not run")?;
        // First the one that would start others.
        kill(Pid::from_raw(postmaster), Signal::SIGSTOP)?;
        let mut listed = processes()?;
        // A moment ago it may have been starting one.
        while listed.iter().any(|(id, _, state)| *id == postmaster && !state.starts_with('T')) {
            listed = processes()?;
        }
        let children: Vec<_> = listed.iter().filter(|(_, parent, _)| *parent == postmaster).map(|(id, ..)| *id).collect();
        let frozen = Frozen(children.into_iter().chain([postmaster]).map(Pid::from_raw).collect());
        frozen.signal(Signal::SIGSTOP);
        Ok(frozen)
    }

    /// Ends the server. With `crash`, it ends at once and without a checkpoint.
    ///
    /// # Errors
    /// The system's.
    pub fn stop(&mut self, crash: bool) -> io::Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        // Letting go of its leash would delete a temporary cluster.
        if let Some(id) = self.process_id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), if crash { Signal::SIGQUIT } else { Signal::SIGINT })?;
        }
        server.wait().map(drop)
    }

    /// Starts the server again, on the same port, after [`Cluster::stop`].
    ///
    /// # Errors
    /// If there are no programs, or the server does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.start(Some(self.port))
    }
}

/// All processes of the machine: their ids, those of their parents, and their states.
fn processes() -> Result<Vec<(i32, i32, String)>> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output().context("listing processes by ps")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let processes = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.to_owned()))
    });
    Ok(processes.collect())
}

/// A server that answers nothing until this value is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Pid>);

impl Frozen {
    fn signal(&self, signal: Signal) {
        for process in &self.0 {
            // One that has ended needs no signal.
            let _ = kill(*process, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A drop cannot return an error.
            let _ = server.stop();
        }
    }
}
