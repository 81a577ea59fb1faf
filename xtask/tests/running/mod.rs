//! Runs `cargo xtask up` in a folder and on ports of its own.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test program uses a part of this module, and may block")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use dev::postgres::{DownloadError, Programs};
use dev::process::{free_address, is_free};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use dev::wait::until_blocking as until;

/// A folder and two free ports for `up`.
pub struct Place {
    pub folder: TempDir,
    pub ports: [u16; 2],
}

impl Place {
    pub fn new() -> Self {
        let ports = [free_address().port(), free_address().port()];
        let folder = tempfile::tempdir().expect("a folder");
        // Postgres' user must be able to enter.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our folder");
        Self { folder, ports }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).arg("--data-dir").arg(self.data());
        // The developer's environment must not change the test.
        for variable in [
            "DATABASE_URL",
            "USERS_DATABASE_URL",
            "ORDERS_DATABASE_URL",
            "USERS_DATABASE_NEXT_URL",
            "ORDERS_DATABASE_NEXT_URL",
            "USERS_DATABASE_NEXT_OWNER_URL",
            "ORDERS_DATABASE_NEXT_OWNER_URL",
            "USERS_URL",
            "USERS_GRPC_URL",
            "ORDERS_URL",
            "CUSTOMERS_VIA",
            "CUSTOMERS_SHADOW",
            "OPEN_ORDERS_VIA",
            "OPEN_ORDERS_SHADOW",
            "EVENTS_VIA",
            "DATABASE_MAX_CONNECTIONS",
            "RUST_LOG",
            "LOG_FORMAT",
        ] {
            command.env_remove(variable);
        }
        command.current_dir(self.folder.path());
        command.env("USERS_ADDR", format!("127.0.0.1:{}", self.ports[0]));
        command.env("ORDERS_ADDR", format!("127.0.0.1:{}", self.ports[1]));
        command.env("USERS_GRPC_ADDR", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn up(&self) -> Up {
        Up::start(self.xtask(&["up"]))
    }

    /// `up` on a downloaded Postgres of this version; `None`, with a printed line, where no archive can be reached.
    pub fn up_on_download(&self, major: u32) -> Option<Up> {
        match Programs::download(major) {
            Ok(_) => {}
            Err(error @ DownloadError::Sources { .. }) => {
                // Past the test harness, which keeps back what a test prints.
                let _ = writeln!(io::stderr(), "skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let mut up = self.xtask(&["up"]);
        up.env_remove("POSTGRES_BIN_DIR").env("POSTGRES_VERSION", major.to_string());
        let up = Up::start(up);
        let made_by = fs::read_to_string(self.data().join("cluster/postgres/PG_VERSION")).expect("a cluster");
        assert_eq!(made_by.trim(), major.to_string());
        Some(up)
    }

    /// Whether all processes of `up` have ended.
    pub fn is_quiet(&self) -> bool {
        let server = fs::read_to_string(self.data().join("cluster/postgres/postmaster.pid"));
        let runs = server.is_ok_and(|file| file.lines().next().is_some_and(|id| Path::new(&format!("/proc/{id}")).exists()));
        !runs && self.ports.iter().all(|&port| is_free(port))
    }
}

/// A running `up`, and what it printed.
pub struct Up {
    pub process: Child,
    pub lines: Vec<String>,
    log: Option<JoinHandle<String>>,
}

impl Up {
    pub fn start(mut command: Command) -> Self {
        let mut process = command.spawn().expect("xtask runs");
        let stderr = process.stderr.take().expect("piped");
        // The services block when the pipe is full.
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            BufReader::new(stderr).read_to_string(&mut log).expect("text");
            log
        });
        let mut lines = Vec::new();
        for line in BufReader::new(process.stdout.take().expect("piped")).lines() {
            let line = line.expect("text");
            let last = line.contains("Ctrl-C");
            lines.push(line);
            if last {
                return Self { process, lines, log: Some(log) };
            }
        }
        process.wait().expect("ended");
        panic!("up ended: {}", log.join().expect("a log"));
    }

    /// The printed line that starts with this command.
    pub fn line(&self, command: &str) -> &str {
        self.lines.iter().find(|line| line.trim_start().starts_with(command)).expect("a line to paste")
    }

    /// Runs that line in a shell, and returns the output.
    pub fn paste(&self, command: &str) -> String {
        let line = self.line(command);
        let Output { status, stdout, stderr } = Command::new("/bin/sh").args(["-c", line]).output().expect("a shell");
        assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().expect("an id")), signal).expect("it runs");
    }

    pub fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait().expect("ended");
        let log = self.log.take().expect("read once").join().expect("a log");
        (status.code(), log)
    }
}

/// A test that fails stops its processes, too.
impl Drop for Up {
    fn drop(&mut self) {
        if self.log.is_some() {
            self.signal(Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }
}
