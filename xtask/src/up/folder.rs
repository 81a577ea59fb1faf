//! The data folder, which one `up` at a time can use.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::postgres::server_user_can_enter;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::workspace::root;

/// Locked while an `up` runs; contains its process id. The system releases the lock however that process ends.
const LOCK: &str = "up.lock";
/// The private server's folder in the data folder.
pub const CLUSTER: &str = "cluster";
/// The ending of the files that keep passwords of roles on a named server.
pub const PASSWORD: &str = ".password";
/// The beginning of the files of the local issuer.
pub const ISSUER: &str = "issuer.";
/// The ending of the files with the services' tokens.
pub const TOKEN: &str = ".token";
/// Longer than `up` takes to stop everything.
const STOP: Duration = Duration::from_secs(90);

/// The folder, locked by this process.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Locks the folder, made now if there is none.
    pub fn lock(chosen: Option<&Path>) -> Result<Self> {
        let path = path(chosen);
        if !path.exists() {
            fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
            // Postgres' user must be able to enter the folder in it.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        check_is_ours(&path)?;
        let open = || File::options().create(true).read(true).write(true).truncate(false).open(path.join(LOCK));
        let mut lock = open().with_context(|| format!("the folder {} cannot be used", path.display()))?;
        if lock.try_lock().is_err() {
            let holder = holder(&mut lock).map(|id| format!(" (process {id})")).unwrap_or_default();
            bail!(
                "{} is in use by another `cargo xtask up`{holder}: stop it with `cargo xtask down`, or choose another \
                 --data-dir and other ports",
                path.display()
            );
        }
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }

    /// Deletes all that `up` has made, and the folder if nothing else is in it.
    pub fn wipe(self) -> Result<()> {
        let failed = || format!("{} cannot be emptied", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            let entry = entry.with_context(failed)?.path();
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == CLUSTER {
                fs::remove_dir_all(&entry).with_context(failed)?;
            } else if name == LOCK || name.ends_with(PASSWORD) || name.starts_with(ISSUER) || name.ends_with(TOKEN) {
                fs::remove_file(&entry).with_context(failed)?;
            }
        }
        fs::remove_dir(&self.path).with_context(|| format!("{} is not deleted: it holds other files", self.path.display()))
    }

    /// An absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `.data` beside the workspace's `Cargo.toml`. If Postgres' user cannot enter it: a folder in `/var/tmp`, named by a
/// hash of the project's path.
pub fn path(chosen: Option<&Path>) -> PathBuf {
    if let Some(chosen) = chosen {
        return std::path::absolute(chosen).unwrap_or_else(|_| chosen.to_owned());
    }
    if server_user_can_enter(root()) {
        return root().join(".data");
    }
    let digest = Sha256::digest(root().as_os_str().as_encoded_bytes());
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Path::new("/var/tmp").join(format!("shared-postgres-{digest}"))
}

/// Refuses a folder of another user, and a folder with files that `up` has not made.
fn check_is_ours(path: &Path) -> Result<()> {
    let held = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    if !held.is_dir() || held.uid() != nix::unistd::geteuid().as_raw() {
        bail!("{} is not your folder: choose another --data-dir", path.display());
    }
    let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if !empty && !is_ours(path) {
        bail!("{} holds other files: choose an empty folder, or one that does not exist yet", path.display());
    }
    Ok(())
}

/// Whether an `up` has made this folder.
pub fn is_ours(path: &Path) -> bool {
    path.join(LOCK).is_file()
}

/// Stops the `up` that uses the folder, and waits until it has ended.
pub fn stop_holder(path: &Path) -> Result<()> {
    let deadline = Instant::now() + STOP;
    let mut asked = false;
    loop {
        let mut file = File::options().read(true).write(true).open(path.join(LOCK))?;
        if file.try_lock().is_ok() {
            return Ok(());
        }
        if !asked && let Some(id) = holder(&mut file) {
            kill(Pid::from_raw(id), Signal::SIGTERM).with_context(|| format!("process {id} cannot be stopped"))?;
            println!("stopping the `cargo xtask up` with process id {id}");
            asked = true;
        }
        if Instant::now() > deadline {
            bail!("the `cargo xtask up` in {} did not stop within {STOP:?}", path.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn holder(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    text.trim().parse().ok()
}
