//! The project's folder, and builds of its programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The folder of the workspace's Cargo.toml.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the project's folder")
}

/// A cargo command in the project's folder.
pub fn cargo() -> Command {
    let mut command = dev::process::cargo();
    command.current_dir(root());
    command
}

/// Builds these programs with these features, and returns the folder they are in.
pub fn build(programs: &[&str], release: bool, features: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    // Without `--package`, cargo builds with the features of the whole workspace, so `cargo test` shares the build.
    build.arg("build").args(programs.iter().flat_map(|program| ["--bin", program]));
    if !features.is_empty() {
        build.args(["--features", &features.join(",")]);
    }
    if release {
        build.arg("--release");
    }
    let status = build.status().context("cargo cannot be run")?;
    ensure!(status.success(), "{} cannot be built; see above", programs.join(", "));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder));
    Ok(target.join(if release { "release" } else { "debug" }))
}
