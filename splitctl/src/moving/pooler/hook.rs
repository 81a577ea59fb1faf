//! An operator's command.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::exit::require;
use crate::moving::side::Side;

/// Runs a command, with the side in `SPLITCTL_SIDE`. After `limit`, it and all that it has started are killed.
///
/// # Errors
/// If it fails, or takes longer.
pub async fn run(command: &str, side: Side, limit: Option<Duration>) -> Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).env("SPLITCTL_SIDE", side.to_string());
    let Some(limit) = limit else {
        let status = shell.status().await.with_context(|| format!("`{command}` cannot be run"))?;
        require!(status.success(), "`{command}` failed ({status})");
        return Ok(());
    };
    // Standard output belongs to the result, and the guard's standard input to its words.
    shell.stdin(Stdio::null()).stdout(std::io::stderr().as_fd().try_clone_to_owned()?).process_group(0);
    let mut child = shell.spawn().with_context(|| format!("`{command}` cannot be run"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(status) => {
            let status = status?;
            require!(status.success(), "`{command}` failed ({status})");
            Ok(())
        }
        Err(_) => {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            let _ = child.wait().await;
            bail!(crate::exit::Refused(format!("`{command}` took longer than {limit:?} and was killed")))
        }
    }
}
