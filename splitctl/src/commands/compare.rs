//! `splitctl compare`: borrowed objects beside their replacements.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::database::connect;
use crate::exit;
use crate::manifest::{Borrowing, Manifest};
use crate::output::Output;
use crate::replacement::{Comparison, Row, compare};

/// Its flags.
#[derive(Debug, Args)]
pub struct Compare {
    /// The borrowed objects, as the manifest names them; without any, all that name a file `compare`
    what: Vec<String>,
    /// How long rows may differ: their events may be on the way
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    patience: Duration,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Document {
    equal: bool,
    compared: Vec<Comparison>,
}

/// Runs it.
pub async fn run(arguments: Compare, manifest: &Path) -> Result<u8> {
    let Compare { what, patience, output } = arguments;
    let manifest = Manifest::read(manifest)?;
    let named: Vec<&Borrowing> = if what.is_empty() {
        manifest.borrowings.iter().filter(|borrowing| borrowing.compare.is_some()).collect()
    } else {
        what.iter().map(|what| manifest.borrowing(what)).collect::<Result<_>>()?
    };
    ensure!(!named.is_empty(), "no borrowing of the manifest names a file `compare`");
    let mut connection = connect(&manifest.source.resolve("source")?).await?;
    let mut compared = Vec::new();
    for borrowing in named {
        compared.push(compare(&mut connection, borrowing, patience).await?);
    }
    let document = Document { equal: compared.iter().all(|comparison| comparison.different == 0), compared };
    output.print(&document, || document.compared.iter().map(text).collect());
    Ok(if document.equal { exit::DONE } else { exit::NO })
}

/// The differing keys and their versions. What else the rows hold is personal data, and stays out of terminals.
fn text(comparison: &Comparison) -> String {
    let Comparison { what, rows, different, differences } = comparison;
    let version = |version: &Option<i64>| version.map_or("–".to_owned(), |version| version.to_string());
    let line = |row: &Row| {
        let Row { key, difference, published_version, replica_version } = row;
        let difference = difference.as_deref().unwrap_or_default();
        let (published, replica) = (version(published_version), version(replica_version));
        format!("{what}: {key} is {difference} (version: {published} published, {replica} in the replica)\n")
    };
    let lines: String = differences.iter().map(line).collect();
    format!("{lines}{what}: {rows} rows compared, {different} differ\n")
}
