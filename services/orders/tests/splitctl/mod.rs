//! The program `splitctl`, for tests of both services beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The program. Cargo does not build another package's program for a test.
pub static SPLITCTL: LazyLock<PathBuf> = LazyLock::new(|| {
    let build = dev::process::cargo().args(["build", "--quiet", "--bin", "splitctl"]).current_dir(root()).status();
    assert!(build.expect("cargo runs").success());
    let programs = Path::new(env!("CARGO_BIN_EXE_orders")).parent().and_then(Path::parent).expect("the target folder");
    programs.join("debug/splitctl")
});

/// A command with the project's manifest.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(&*SPLITCTL);
    command.arg("--manifest").arg(root().join("split.toml")).args(arguments);
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace's folder")
}
