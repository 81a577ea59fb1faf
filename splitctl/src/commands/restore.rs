//! `splitctl restore`: undoes `splitctl replace`.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::database::connect;
use crate::exit;
use crate::manifest::Manifest;
use crate::moving::Locking;
use crate::output::Output;
use crate::replacement::restore;

/// Its flags.
#[derive(Debug, Args)]
pub struct Restore {
    /// The borrowed object, as the manifest names it
    what: String,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// Runs it.
pub async fn run(arguments: Restore, manifest: &Path) -> Result<u8> {
    let Restore { what, locking, output } = arguments;
    let manifest = Manifest::read(manifest)?;
    let borrowing = manifest.borrowing(&what)?;
    let mut connection = connect(&manifest.source.resolve("source")?).await?;
    let changed = restore(&mut connection, &manifest, borrowing, locking).await?;
    let who = &borrowing.who;
    let document = json!({ "what": what, "who": who, "replaced": false, "changed": changed });
    output.print(&document, || match changed {
        true => format!("{what}: restored. Leave the consumer of {who} running until it has read all events so far"),
        false => format!("{what}: not replaced, nothing to restore"),
    });
    Ok(exit::DONE)
}
