//! Child processes that end when we do, however we end: by `kill -9`, too.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To Postgres: a fast shutdown.
    Int,
    /// To Postgres: an immediate shutdown, which is a crash.
    Quit,
    /// To a service: a graceful stop.
    Term,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Term => "TERM",
        }
    }
}

/// The shell that holds the leash. Its standard input is a pipe that we hold open: when that closes, since we let go of
/// it or are no more, the process gets its signal. When the process ends by itself, the shell ends with its exit code.
/// `$1` is the signal, `$2` what to delete when the leash was let go of, if anything; the rest is the command.
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
# Killed just now, it was still holding.
[ "$?" -ge 128 ] || [ -z "$leftover" ] || rm -rf "$leftover"
exit "$code"
"#;

fn on_leash(mut shell: Command, command: &Command, signal: Signal, leftover: Option<&Path>) -> Command {
    shell.args(["-c", LEASH, "leash", signal.name()]).arg(leftover.map_or(OsStr::new(""), Path::as_os_str));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// A process on a leash.
#[derive(Debug)]
pub struct Leashed {
    shell: Child,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(ExitStatus);

impl Ended {
    /// Its exit code. For one that died of a signal: 128 and the signal's number.
    pub fn code(self) -> i32 {
        self.0.code().unwrap_or_else(|| 128 + self.0.signal().unwrap_or_default())
    }
}

impl Leashed {
    /// Starts `command` on a leash: it gets `signal` when this value is dropped or this process ends. Its standard input
    /// is empty; a terminal's Ctrl-C does not reach it.
    ///
    /// # Errors
    /// If there is no shell. That the command cannot be run shows by exit code 126 or 127.
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

    /// The same for a command that is run by another user; `leftover` is deleted when it ends because the leash was let
    /// go of.
    pub(crate) fn start_as(
        user: Option<&nix::unistd::User>,
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
        // In a group of its own, Ctrl-C reaches us alone, and we end what we started in the right order.
        shell.stdin(Stdio::piped()).process_group(0);
        Ok(Self { shell: shell.spawn()? })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> io::Result<Option<Ended>> {
        Ok(self.shell.try_wait()?.map(Ended))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn wait(mut self) -> io::Result<Ended> {
        // `Child::wait` would close its standard input first, which is to let go of the leash.
        let held = self.shell.stdin.take();
        let ended = self.shell.wait().map(Ended);
        drop(held);
        ended
    }

    /// Gives it its signal, and waits until it has ended.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn stop(mut self) -> io::Result<Ended> {
        drop(self.shell.stdin.take());
        self.shell.wait().map(Ended)
    }

    /// The same, for `patience` at most; then it and all it started are killed.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn stop_within(mut self, patience: Duration) -> io::Result<Ended> {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(ended) = self.ended()? {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A process id stays ours until it is waited for.
        if let Ok(id) = i32::try_from(self.shell.id()) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        }
        self.shell.wait().map(Ended)
    }
}
