//! `splitctl generate`: what a package of splitctl has besides the program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

/// Flags of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// The folder for `completions/` and `man/`
    folder: PathBuf,
}

/// Writes the completions of every shell, and a man page for each command.
pub fn run(options: &Generate, program: Command) -> Result<u8> {
    let completions = make(&options.folder.join("completions"))?;
    let pages = make(&options.folder.join("man"))?;
    let mut program = program;
    for shell in Shell::value_variants() {
        let written = clap_complete::generate_to(*shell, &mut program, "splitctl", &completions);
        written.with_context(|| format!("{}: cannot be written", completions.display()))?;
    }
    program.build();
    write_page(&pages, &program)?;
    for command in program.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        write_page(&pages, command)?;
    }
    Ok(crate::exit::DONE)
}

fn make(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    Ok(folder.to_owned())
}

/// Writes the page of a command, which is named like `splitctl-copy`.
fn write_page(pages: &Path, command: &Command) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = pages.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("{}: cannot be written", path.display()))
}
