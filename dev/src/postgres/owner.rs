//! Who runs the server. Postgres refuses to run as root, so root runs it as somebody else, the server alone.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};

/// Unprivileged users, the best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Whom to become; `None` if we are unprivileged already.
pub(crate) fn server_user() -> io::Result<Option<User>> {
    if geteuid() != Uid::from_raw(0) {
        return Ok(None);
    }
    let known = CANDIDATES.iter().find_map(|name| User::from_name(name).ok().flatten());
    let missing = || io::Error::other("there is neither a user postgres nor a user nobody to run Postgres as");
    known.ok_or_else(missing).map(Some)
}

/// A command that runs as the server's user.
pub(crate) fn command(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    // A folder that the user may not enter would be the first thing the programs complain about.
    command.current_dir("/");
    if let Some(user) = user {
        // std gives up supplementary groups with it.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Makes a folder, and gives it to the server's user.
pub(crate) fn make_folder(folder: &Path, user: Option<&User>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match user {
        Some(user) => chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        None => Ok(()),
    }
}

/// Whether the user that the server would run as can enter `folder`. For root that is another user, who cannot enter
/// the folders that are root's alone.
pub fn server_user_can_enter(folder: &Path) -> bool {
    let Ok(user) = server_user() else { return false };
    let mut test = command(Path::new("/bin/sh"), user.as_ref());
    test.args(["-c", "cd \"$1\"", "sh"]).arg(folder);
    test.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
