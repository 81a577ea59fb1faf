//! A private cluster: a server on 127.0.0.1, on a free port, with a password of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::User;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::owner::{command, make_folder, server_user};
use super::programs::{NotFound, Programs};
use crate::process::{Leashed, Signal};
use crate::wait::block_on;

/// How long a server may take to start, recovery after a crash included.
const START: Duration = Duration::from_secs(60);
/// How often to try another port: between finding a free one and the server taking it, somebody else may.
const PORTS: usize = 5;
/// The superuser of a private cluster.
const SUPERUSER: &str = "postgres";

/// The file in the cluster's folder that keeps the password.
const PASSWORD: &str = "password";

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Nothing to run.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A file or a process could not be used.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Init(String),
    /// The server did not come up.
    #[error("Postgres did not start. The end of {log}:\n{tail}")]
    Start {
        /// Its log.
        log: String,
        /// The last lines of that.
        tail: String,
    },
}

fn failed<T: Into<String>>(doing: T) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::Io { doing: doing.into(), source }
}

/// A private cluster. Its server ends when this value is dropped, and when this process ends, however it does.
pub struct Cluster {
    programs: Programs,
    user: Option<User>,
    folder: PathBuf,
    /// Deletes the folder of a temporary cluster that was never started.
    temporary: Option<TempDir>,
    password: String,
    port: u16,
    /// Beyond those that every cluster gets: `name=value`.
    settings: Vec<String>,
    server: Option<Leashed>,
}

impl Cluster {
    /// A cluster that leaves nothing behind. What it commits survives a crash of the server, but none of
    /// the machine, so it is fast.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn temporary() -> Result<Self, ClusterError> {
        Self::temporary_with(&[])
    }

    /// The same with settings such as `shared_buffers=512MB`, which outrank those that every cluster gets.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn temporary_with(settings: &[&str]) -> Result<Self, ClusterError> {
        let user = server_user().map_err(failed("choosing whom to run Postgres as"))?;
        let folder =
            tempfile::Builder::new().prefix("dev-postgres-").tempdir().map_err(failed("making a temporary folder"))?;
        let path = folder.path().to_owned();
        Self::start_new(&path, user, Some(folder), None, settings)
    }

    /// The cluster in `folder`, made now if there is none.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn persistent(folder: &Path) -> Result<Self, ClusterError> {
        let user = server_user().map_err(failed("choosing whom to run Postgres as"))?;
        let port = fs::read_to_string(folder.join("port")).ok().and_then(|port| port.trim().parse().ok());
        let cluster = Self::start_new(folder, user, None, port, &[])?;
        // The next start takes the same port if it can: a psql line in a shell's history goes on working.
        fs::write(folder.join("port"), format!("{}\n", cluster.port)).map_err(failed("noting the port"))?;
        Ok(cluster)
    }

    fn start_new(
        folder: &Path,
        user: Option<User>,
        temporary: Option<TempDir>,
        port: Option<u16>,
        settings: &[&str],
    ) -> Result<Self, ClusterError> {
        let programs = Programs::find()?;
        make_folder(folder, user.as_ref()).map_err(failed(format!("making {}", folder.display())))?;
        // As the server will tell it.
        let folder = folder.canonicalize().map_err(failed(format!("finding {}", folder.display())))?;
        let password = password(&folder, user.as_ref()).map_err(failed("keeping the server's password"))?;
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

    /// Makes the data folder, unless it has been made. A crash half-way leaves one under another name.
    fn init(&self) -> Result<(), ClusterError> {
        if self.data().join("PG_VERSION").exists() {
            return self.check_version();
        }
        let unfinished = self.folder.join("postgres.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(failed(format!("deleting {}", unfinished.display())))?;
        }
        let mut initdb = command(&self.programs.path("initdb"), self.user.as_ref());
        initdb.arg("--pgdata").arg(&unfinished);
        initdb.args(["--username", SUPERUSER, "--auth=scram-sha-256", "--pwfile"]).arg(self.folder.join(PASSWORD));
        initdb.args(["--encoding=UTF8", "--no-locale", "--no-instructions"]);
        if self.temporary.is_some() {
            initdb.arg("--no-sync");
        }
        let output = initdb
            .stdin(Stdio::null())
            .output()
            .map_err(failed(format!("starting {}", self.programs.path("initdb").display())))?;
        if !output.status.success() {
            return Err(ClusterError::Init(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        fs::rename(&unfinished, self.data()).map_err(failed("naming the new data folder"))
    }

    /// A data folder serves one major version only.
    fn check_version(&self) -> Result<(), ClusterError> {
        let made_by = fs::read_to_string(self.data().join("PG_VERSION")).map_err(failed("reading PG_VERSION"))?;
        let have = self.programs.major();
        if made_by.trim() == have.to_string() {
            return Ok(());
        }
        Err(ClusterError::Init(format!(
            "{} was made by Postgres {}, but the programs found are version {have}: set POSTGRES_BIN_DIR to those of version {0}, or delete the folder",
            self.folder.display(),
            made_by.trim(),
        )))
    }

    /// Starts the server, on `port` if that is free.
    fn start(&mut self, port: Option<u16>) -> Result<(), ClusterError> {
        let free = || TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| Ok(listener.local_addr()?.port()));
        for attempt in 1.. {
            let wanted = port.filter(|&port| attempt == 1 && TcpListener::bind(("127.0.0.1", port)).is_ok());
            self.port = wanted.map_or_else(free, Ok).map_err(failed("looking for a free port"))?;
            self.server = Some(self.spawn()?);
            match self.wait() {
                Ok(()) => return Ok(()),
                Err(ClusterError::Start { tail, .. }) if attempt < PORTS && tail.contains("could not bind") => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn spawn(&self) -> Result<Leashed, ClusterError> {
        let mut postgres = Command::new(self.programs.path("postgres"));
        postgres.arg("-D").arg(self.data());
        let port = format!("port={}", self.port);
        let mut settings = vec![
            "listen_addresses=127.0.0.1",
            &port,
            // A path longer than 107 bytes would not do for a socket.
            "unix_socket_directories=",
            "wal_level=logical",
            "max_connections=300",
            "log_min_messages=warning",
            // A test that violates a constraint is no news.
            "log_min_error_statement=panic",
        ];
        if self.temporary.is_some() {
            // Commits still reach the kernel one by one: a crash of the server alone loses none.
            settings.extend(["fsync=off", "full_page_writes=off"]);
        }
        // Of a setting given twice, the last one holds.
        settings.extend(self.settings.iter().map(String::as_str));
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let log = File::create(self.log()).map_err(failed("making the server's log"))?;
        let leftover = self.temporary.as_ref().map(TempDir::path);
        let signal = if leftover.is_some() { Signal::Quit } else { Signal::Int };
        Leashed::start_as(self.user.as_ref(), &postgres, signal, leftover, log)
            .map_err(failed(format!("starting {}", self.programs.path("postgres").display())))
    }

    /// Waits until the server answers: ours, with our data, and no other that happens to use the port.
    fn wait(&mut self) -> Result<(), ClusterError> {
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
                Some(server) => server.ended().map_err(failed("watching the server"))?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(8)..].join("\n");
                return Err(ClusterError::Start { log: self.log().display().to_string(), tail });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL of a database for the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// The URL of a database for `role`. All roles of a private cluster have the same password: it keeps others off.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The password of all roles.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The path of a program that belongs to the server, such as `pgbench`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// Process id of the server.
    pub fn process_id(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Ends the server. `crash`: at once, without a checkpoint, as a power cut would.
    ///
    /// # Errors
    /// If the system cannot tell how it went.
    pub fn stop(&mut self, crash: bool) -> io::Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        // Not by its leash: that would delete a temporary cluster.
        if let Some(id) = self.process_id().and_then(|id| i32::try_from(id).ok()) {
            let signal = if crash { nix::sys::signal::SIGQUIT } else { nix::sys::signal::SIGINT };
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal)?;
        }
        server.wait().map(drop)
    }

    /// Starts the server again, on the same port, after [`Cluster::stop`].
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn start_again(&mut self) -> Result<(), ClusterError> {
        self.start(Some(self.port))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // There is nobody to tell.
            let _ = server.stop();
        }
    }
}

/// The password kept in `folder`, made now if there is none.
fn password(folder: &Path, user: Option<&User>) -> io::Result<String> {
    let path = folder.join(PASSWORD);
    match fs::read_to_string(&path) {
        Ok(password) => Ok(password.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = Uuid::new_v4().simple().to_string();
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            writeln!(file, "{password}")?;
            // initdb reads it.
            if let Some(user) = user {
                chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            }
            Ok(password)
        }
        Err(error) => Err(error),
    }
}
