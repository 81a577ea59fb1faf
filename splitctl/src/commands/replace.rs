//! `splitctl replace`: ends a borrowing with the manifest's SQL.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::database::connect;
use crate::exit;
use crate::manifest::Manifest;
use crate::moving::Locking;
use crate::output::Output;
use crate::replacement::replace;

/// Its flags.
#[derive(Debug, Args)]
pub struct Replace {
    /// The borrowed object, as the manifest names it
    what: String,
    /// How long rows may differ before the command refuses: their events may be on the way
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    locking: Locking,
    #[command(flatten)]
    output: Output,
}

/// Runs it.
pub async fn run(arguments: Replace, manifest: &Path) -> Result<u8> {
    let Replace { what, patience, locking, output } = arguments;
    let manifest = Manifest::read(manifest)?;
    let borrowing = manifest.borrowing(&what)?;
    let mut connection = connect(&manifest.source.resolve("source")?).await?;
    let changed = replace(&mut connection, &manifest, borrowing, patience, locking).await?;
    let who = &borrowing.who;
    let document = json!({ "what": what, "who": who, "replaced": true, "changed": changed });
    output.print(&document, || match changed {
        true => {
            format!("{what}: replaced, it couples {who} to no other owner. `splitctl restore {what}` undoes this")
        }
        false => format!("{what}: already replaced"),
    });
    Ok(exit::DONE)
}
