//! `splitctl init`: a first manifest, drafted from a live database.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::database;
use crate::exit;
use crate::init::draft;
use crate::manifest::Url;
use crate::output::note;

/// Stands in the draft for a URL, because a manifest holds no passwords.
const VARIABLE: &str = "$DATABASE_URL";

/// Its flags.
#[derive(Debug, Args)]
pub struct Init {
    /// The shared database as an operator: a URL, or `$NAME` of the variable that holds it
    #[arg(long, default_value = VARIABLE)]
    database: String,
    /// The manifest's file, which must not exist
    #[arg(long, value_name = "FILE", default_value = "split.toml")]
    output: PathBuf,
}

/// Drafts the manifest and writes it.
pub async fn run(arguments: Init) -> Result<u8> {
    let Init { database, output } = arguments;
    let refuse = || format!("{} exists: name another file with --output, or move it away", output.display());
    if output.exists() {
        bail!(refuse());
    }
    let source = if database.starts_with('$') { database.clone() } else { VARIABLE.to_owned() };
    let mut connection = database::connect(&Url(database).resolve("--database")?).await?;
    let text = draft(&mut connection, &source).await?;
    let file = OpenOptions::new().write(true).create_new(true).open(&output);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(refuse()),
        written => written.with_context(|| format!("{} cannot be written", output.display()))?,
    }
    note(format_args!("{} is a draft: read it, correct it, then run `splitctl audit`", output.display()));
    Ok(exit::DONE)
}
