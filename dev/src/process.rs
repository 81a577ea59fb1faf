//! Child processes that end with this process, even if `kill -9` ends it, and addresses for them. And cargo.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, User};
use tokio::signal::unix::{SignalKind, signal};

/// The shell that holds the leash. Its standard input is a pipe that this process holds open. When the pipe closes, because
/// this process let go or ended, the command gets its signal. When the command ends by itself, the shell ends with its exit
/// code. `$1` is the signal, `$2` a folder to delete after the pipe was closed, or empty; the rest is the command.
const LEASH: &str = r#"
signal=$1 leftover=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ read -r _ <&3; kill -s "$signal" "$child"; } 2>/dev/null &
leash=$!
wait "$child"
code=$?
kill "$leash" 2>/dev/null
wait "$leash" 2>/dev/null
# Above 128: it was killed just now, so the pipe was still open.
[ "$?" -ge 128 ] || [ -z "$leftover" ] || rm -rf "$leftover"
exit "$code"
"#;

/// A cargo command.
pub fn cargo() -> Command {
    // cargo names itself here. PATH may have another one.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // `cargo run` and `cargo test` set these for one package. Build scripts would take them for their own, and rebuild much.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// A free address on 127.0.0.1, another one at each call.
///
/// # Panics
/// If the machine has no free port.
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port()) {
            return address;
        }
    }
}

/// Whether no process uses this port of 127.0.0.1.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A future that resolves at SIGTERM or Ctrl-C, which do not end this process any more.
///
/// # Errors
/// If the process cannot listen to signals.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn on_leash(mut shell: Command, command: &Command, signal: Signal, leftover: Option<&Path>) -> Command {
    shell
        .args(["-c", LEASH, "leash", signal.as_str().trim_start_matches("SIG")])
        .arg(leftover.map_or(OsStr::new(""), Path::as_os_str));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// A process that ends when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Leashed {
    shell: Child,
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(ExitStatus);

impl Ended {
    /// The exit code; after a signal, 128 and the signal's number.
    pub fn code(self) -> i32 {
        self.0.code().unwrap_or_else(|| 128 + self.0.signal().unwrap_or_default())
    }
}

impl Leashed {
    /// Starts `command`. It gets `signal` when this value is dropped or this process ends. Its standard input is empty, and
    /// a terminal's Ctrl-C does not reach it.
    ///
    /// # Errors
    /// If there is no shell. If the command cannot be run, it ends with exit code 126 or 127.
    pub fn start(command: &Command, signal: Signal) -> io::Result<Self> {
        let mut shell = on_leash(Command::new("/bin/sh"), command, signal, None);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        Self::spawn(shell)
    }

    /// The same for a command that another user runs. `leftover` is deleted once the leash is let go of.
    pub(crate) fn start_as(
        user: Option<&User>,
        command: &Command,
        signal: Signal,
        leftover: Option<&Path>,
        log: std::fs::File,
    ) -> io::Result<Self> {
        let mut shell = on_leash(crate::postgres::owner::command(Path::new("/bin/sh"), user), command, signal, leftover);
        shell.stdout(log.try_clone()?).stderr(log);
        Self::spawn(shell)
    }

    fn spawn(mut shell: Command) -> io::Result<Self> {
        // In a group of its own it gets no Ctrl-C, so this process can end its children in the right order.
        shell.stdin(Stdio::piped()).process_group(0);
        Ok(Self { shell: shell.spawn()? })
    }

    /// Its end, if it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        Ok(self.shell.try_wait()?.map(Ended))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(mut self) -> io::Result<Ended> {
        // `Child::wait` closes the standard input first, and that would let go of the leash.
        let held = self.shell.stdin.take();
        let ended = self.shell.wait().map(Ended);
        drop(held);
        ended
    }

    /// Sends its signal, and waits until it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn stop(mut self) -> io::Result<Ended> {
        drop(self.shell.stdin.take());
        self.shell.wait().map(Ended)
    }

    /// The same, for `patience` at most. Then the process and its children are killed.
    ///
    /// # Errors
    /// The system's.
    pub fn stop_within(mut self, patience: Duration) -> io::Result<Ended> {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(ended) = self.ended()? {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The process id cannot be another's before `wait`.
        if let Ok(id) = i32::try_from(self.shell.id()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        self.shell.wait().map(Ended)
    }
}
