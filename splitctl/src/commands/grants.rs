//! `splitctl grants`: the roles and rights that the manifest implies.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::database;
use crate::exit;
use crate::grants::{Drift, apply, compare};
use crate::manifest::Manifest;
use crate::output::Output;

/// Its flags.
#[derive(Debug, Args)]
pub struct Grants {
    /// Revoke and grant what differs, in one transaction
    #[arg(long)]
    apply: bool,
    /// The database: `source`, the shared one, or an owner's name for the database that it moves to
    #[arg(long, value_name = "source|OWNER", default_value = SOURCE)]
    on: String,
    #[command(flatten)]
    output: Output,
}

const SOURCE: &str = "source";

#[derive(Serialize)]
struct Document<'a> {
    applied: bool,
    drift: bool,
    #[serde(flatten)]
    details: &'a Drift,
}

/// Compares, applies if `--apply` is given, and prints the result.
pub async fn run(arguments: Grants, manifest: &Path) -> Result<u8> {
    let mut manifest = Manifest::read(manifest)?;
    let only = (arguments.on != SOURCE).then_some(arguments.on.as_str());
    let url = match only {
        None => manifest.source.resolve("source")?,
        Some(name) => {
            let target = manifest.owner(name)?.target.as_ref();
            let target = target.with_context(|| format!("{name} has no `target` in the manifest"))?;
            target.resolve(&format!("the target of {name}"))?
        }
    };
    if let Some(owner) = only.and_then(|name| manifest.owners.get_mut(name)) {
        owner.role = owner.on_target(&owner.role).to_owned();
    }
    let mut connection = database::connect(&url).await?;
    let (drift, left) = if arguments.apply {
        let (mut done, left) = apply(&mut connection, &manifest, only).await?;
        done.notes
            .extend(left.extra.iter().map(|revoke| format!("{revoke}: without effect, because another role granted it")));
        (done, left.is_some())
    } else {
        let drift = compare(&mut connection, &manifest, only).await?;
        let differs = drift.is_some();
        (drift, differs)
    };
    let document = Document { applied: arguments.apply, drift: left, details: &drift };
    arguments.output.print(&document, || text(&drift, arguments.apply));
    Ok(if left { exit::NO } else { exit::DONE })
}

/// A script for psql, with notes in comments.
fn text(drift: &Drift, applied: bool) -> String {
    let Drift { extra, implied, absent, notes } = drift;
    let mut text = String::new();
    for revoke in extra {
        let _ = writeln!(text, "{revoke}; -- {}", if applied { "revoked" } else { "extra: the manifest does not give it" });
    }
    for step in implied {
        let mark = match (step.missing, applied) {
            (false, _) => "",
            (true, false) => " -- missing",
            (true, true) => " -- granted",
        };
        let _ = writeln!(text, "{};{mark}", step.sql);
    }
    for line in absent.iter().chain(notes) {
        let _ = writeln!(text, "-- {}", line.replace(['\r', '\n'], " "));
    }
    let missing = implied.iter().filter(|step| step.missing).count();
    let _ = match (applied, drift.is_some()) {
        (_, false) => writeln!(text, "-- no drift"),
        (true, true) => writeln!(text, "-- applied: {} revoked, {missing} granted, {} absent", extra.len(), absent.len()),
        (false, true) => writeln!(
            text,
            "-- drift: {} extra, {missing} missing, {} absent; --apply revokes and grants",
            extra.len(),
            absent.len()
        ),
    };
    text
}
