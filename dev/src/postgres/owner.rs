//! The user that runs the server. Postgres refuses to run as root, so root starts it, and it alone, as an unprivileged user.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};

/// Unprivileged users, the best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];
/// The file in a cluster's folder that keeps the password.
pub(crate) const PASSWORD: &str = "password";

/// The user to become; `None` if this process is unprivileged already.
pub(crate) fn server_user() -> io::Result<Option<User>> {
    if geteuid() != Uid::from_raw(0) {
        return Ok(None);
    }
    let known = CANDIDATES.iter().find_map(|name| User::from_name(name).ok().flatten());
    let missing = || io::Error::other("this machine has neither a user postgres nor a user nobody");
    known.ok_or_else(missing).map(Some)
}

/// A command that runs as the server's user.
pub(crate) fn command(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    // The programs fail in a folder that their user may not enter.
    command.current_dir("/");
    if let Some(user) = user {
        // std drops the supplementary groups, too.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        // A server that connects to another one looks for certificates there.
        command.env("HOME", &user.dir);
    }
    command
}

/// Makes a folder, and gives it to the server's user.
pub(crate) fn make_folder(folder: &Path, user: Option<&User>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    give(folder, user)
}

/// Gives a file or a folder to the server's user.
pub(super) fn give(path: &Path, user: Option<&User>) -> io::Result<()> {
    match user {
        Some(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        None => Ok(()),
    }
}

/// Whether the server's user can enter `folder`. Started by root, the server cannot enter folders that only root can.
pub fn server_user_can_enter(folder: &Path) -> bool {
    let Ok(user) = server_user() else { return false };
    let mut test = command(Path::new("/bin/sh"), user.as_ref());
    test.args(["-c", "cd \"$1\"", "sh"]).arg(folder);
    test.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Reads the password in `folder`, or makes one.
pub(crate) fn password(folder: &Path, user: Option<&User>) -> io::Result<String> {
    let path = folder.join(PASSWORD);
    match fs::read_to_string(&path) {
        Ok(password) => Ok(password.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = uuid::Uuid::new_v4().simple().to_string();
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            writeln!(file, "{password}")?;
            // initdb reads it.
            give(&path, user)?;
            Ok(password)
        }
        Err(error) => Err(error),
    }
}
