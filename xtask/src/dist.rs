//! Builds what a release has: static, stripped programs, an SBOM of each, completions and man pages of splitctl, checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::workspace::{cargo, root};

/// The programs of a release.
const PROGRAMS: [&str; 3] = ["users", "orders", "splitctl"];

/// Flags of `dist`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A target of Rust, such as `x86_64-unknown-linux-musl` [default: this machine's]
    #[arg(long)]
    target: Option<String>,
    /// Where the files go
    #[arg(long, default_value = "target/artifacts")]
    folder: PathBuf,
    /// Build without optimisation, to try the command
    #[arg(long)]
    dev: bool,
}

/// Runs the command.
pub fn run(options: &Options) -> Result<ExitCode> {
    ensure!(
        cargo().args(["cyclonedx", "--version"]).output().is_ok_and(|output| output.status.success()),
        "cargo-cyclonedx is missing, which writes the SBOMs: cargo install --locked cargo-cyclonedx"
    );
    let target = match &options.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let folder = root().join(&options.folder);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{}: cannot be emptied", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let built = build(&target, options.dev)?;
    for program in PROGRAMS {
        let to = folder.join(program);
        fs::copy(built.join(program), &to).with_context(|| format!("{}: cannot be written", to.display()))?;
        check_static(&to)?;
        write_sbom(program, &target, &folder)?;
    }
    let generated = Command::new(folder.join("splitctl")).arg("generate").arg(&folder).status()?;
    ensure!(generated.success(), "splitctl cannot write its completions and man pages; see above");
    write_checksums(&folder)?;
    println!("{}: {} for {target}", folder.display(), PROGRAMS.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// The target of this machine.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc does not name its host")
}

/// Builds the programs with the C library in them, and returns the folder they are in.
fn build(target: &str, is_dev: bool) -> Result<PathBuf> {
    let profile = if is_dev { "dev" } else { "dist" };
    let mut build = cargo();
    build.args(["build", "--locked", "--profile", profile, "--target", target]);
    build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    // With a target named, this does not reach procedural macros, which cannot be static.
    let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    // A static program does not find the C library's `getrandom` by its name: it calls the kernel, and needs no /dev.
    build.env(variable, "-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\"");
    ensure!(build.status().context("cargo cannot be run")?.success(), "the programs cannot be built; see above");
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder));
    Ok(folder.join(target).join(if is_dev { "debug" } else { "dist" }))
}

/// Checks that the program runs without shared libraries: no part of it names a loader.
fn check_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program)?;
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "{}: not a program for 64-bit Linux", program.display());
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte))
    };
    // The table of program headers: where it is, how long an entry is, and how many there are.
    let (table, length, count) = (number(32, 8), number(54, 2), number(56, 2));
    /// The kind of the entry that names a loader.
    const INTERPRETER: usize = 3;
    if (0..count).any(|entry| number(table + entry * length, 4) == INTERPRETER) {
        bail!("{}: needs shared libraries", program.display());
    }
    Ok(())
}

/// Writes what the program is made of, as `CycloneDX`.
fn write_sbom(program: &str, target: &str, folder: &Path) -> Result<()> {
    let member = if program == "splitctl" { root().join(program) } else { root().join("services").join(program) };
    let name = format!("{program}.cdx");
    let mut cyclonedx = cargo();
    cyclonedx.args([
        "cyclonedx",
        "--format",
        "json",
        "--spec-version",
        "1.5",
        "--target",
        target,
        "--override-filename",
        &name,
    ]);
    cyclonedx.arg("--manifest-path").arg(member.join("Cargo.toml"));
    ensure!(cyclonedx.status().context("cargo cannot be run")?.success(), "{program}: no SBOM; see above");
    // It writes beside the manifest, for other members as well.
    let written = member.join(format!("{name}.json"));
    fs::copy(&written, folder.join(format!("{name}.json"))).with_context(|| format!("{}: missing", written.display()))?;
    for entry in cargo_metadata::MetadataCommand::new().current_dir(root()).no_deps().exec()?.packages {
        let beside = entry.manifest_path.with_file_name(format!("{name}.json"));
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
    }
    Ok(())
}

/// Writes SHA256SUMS, as `sha256sum --check` reads it.
fn write_checksums(folder: &Path) -> Result<()> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut sums = String::new();
    for file in files {
        let sum: String = Sha256::digest(fs::read(&file)?).iter().map(|byte| format!("{byte:02x}")).collect();
        sums += &format!("{sum}  {}\n", file.strip_prefix(folder)?.display());
    }
    fs::write(folder.join("SHA256SUMS"), sums).context("SHA256SUMS cannot be written")
}
