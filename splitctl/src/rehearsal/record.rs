//! The record of the last rehearsal, beside the manifest: no database keeps any.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::fingerprint::Fingerprint;
use super::report::Report;
use crate::moving::Move;
use crate::moving::plan::{Plan, Weight};

/// What `plan` reads of a report.
#[derive(Deserialize)]
struct Known {
    at: String,
    errors: usize,
    finished: bool,
    fingerprint: Option<Fingerprint>,
}

/// Writes the report beside the manifest, and to another folder if there is one. Returns the paths of the pages.
pub fn write(report: &Report, manifest: &Path, folder: Option<&Path>) -> Result<Vec<PathBuf>> {
    let beside = self::folder(manifest);
    let mut pages = Vec::new();
    for folder in [Some(beside.as_path()), folder].into_iter().flatten() {
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
        let page = folder.join(format!("{}.html", report.owner));
        let document = serde_json::to_string_pretty(report)?;
        for (path, content) in [(page.with_extension("json"), document), (page.clone(), report.page()?)] {
            fs::write(&path, content).with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        pages.push(page);
    }
    Ok(pages)
}

/// Adds to a plan whether a rehearsal was made, when, of which definitions, and what it found.
///
/// # Errors
/// If the source cannot be asked. A record that cannot be read is a finding.
pub async fn describe(plan: &mut Plan, the_move: &mut Move, manifest: &Path) -> Result<()> {
    let owner_name = the_move.owner_name.clone();
    let path = folder(manifest).join(format!("{owner_name}.json"));
    let again = format!("`splitctl rehearse {owner_name}`");
    let known = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str::<Known>(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("none was made: {again} goes the whole way on throw-away databases first");
            plan.add(Weight::Note, "rehearsal", text);
            return Ok(());
        }
        Err(error) => Err(serde_json::Error::io(error)),
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            plan.add(Weight::Warning, "rehearsal", format!("{}: cannot be read ({error}): repeat {again}", path.display()));
            return Ok(());
        }
    };
    // The move itself changes the definitions.
    let changed = match &known.fingerprint {
        Some(rehearsed) if !the_move.is_open() => {
            let Move { owner, source, target, .. } = the_move;
            Fingerprint::read(owner, source, target.version).await?.differences(rehearsed)
        }
        _ => Vec::new(),
    };
    let (weight, text) = judge(&known, &changed, &again);
    plan.add(weight, "rehearsal", text);
    Ok(())
}

fn judge(known: &Known, changed: &[&str], again: &str) -> (Weight, String) {
    let Known { at, errors, finished, fingerprint } = known;
    let found = match (errors, finished) {
        (0, true) => "found no error",
        (_, true) => "found errors",
        (_, false) => "stopped before its end",
    };
    let of_what = fingerprint.as_ref().map_or("unknown definitions".to_owned(), |known| {
        format!("definitions {}, entry {}", known.definitions, known.entry)
    });
    let text = format!("one was made on {at} ({of_what}), and {found}");
    match (changed, *errors, finished) {
        ([], 0, true) => (Weight::Note, text),
        ([], ..) => (Weight::Warning, format!("{text}: see its report, correct that, and repeat {again}")),
        (changed, ..) => {
            let what = changed.join(" and ");
            (Weight::Warning, format!("{text}. Since then these have changed: {what}. Repeat {again}"))
        }
    }
}

fn folder(manifest: &Path) -> PathBuf {
    manifest.parent().unwrap_or(Path::new("")).join("rehearsals")
}
