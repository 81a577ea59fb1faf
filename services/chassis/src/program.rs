//! A service's program, from its configuration to its exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Builder;

use crate::config::{ServiceOptions, exit_code, load};
use crate::telemetry::{self, LogLevel};

/// How long to wait, at the end, for what still runs beside the work, such as the look-up of a host's name.
const REST: Duration = Duration::from_millis(100);

/// Reads the configuration, logs as `options` say, and runs `work` to its end.
///
/// # Panics
/// If the system gives the process no threads.
pub fn run<C: Parser, F: Future<Output = Result<ExitCode, String>>>(
    options: fn(&C) -> &ServiceOptions,
    work: fn(C, Option<LogLevel>) -> F,
) -> ExitCode {
    let config = match load::<C>() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let options = options(&config);
    let level = telemetry::init(&options.log, options.process::<C>(), options.admin_addr.is_some());
    raise_open_files();
    let mut runtime = Builder::new_multi_thread();
    if let Some(threads) = options.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().expect("a process has threads");
    let ended = runtime.block_on(work(config, level));
    // Dropped, the runtime would wait for ever.
    runtime.shutdown_timeout(REST);
    exit_code(ended)
}

/// Raises the limit on open files to the most that the process may have, since each connection is one. The limit that most
/// systems begin with is low for the sake of programs that call `select`; this one does not. Where it cannot be raised, the
/// service works up to the one there is.
fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
