//! `splitctl audit`: every coupling in one list.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::audit::{Finding, Report, Severity, Sources, audit, map};
use crate::database;
use crate::exit;
use crate::manifest::Manifest;
use crate::output::Output;

/// Its flags.
#[derive(Debug, Args)]
pub struct Audit {
    /// Watch for this long (500ms, 60s, 5m) which transactions write tables of two owners
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// Draw the couplings into this SVG file
    #[arg(long, value_name = "FILE.svg")]
    map: Option<PathBuf>,
    /// The sqlx offline data of an owner, instead of the manifest's
    #[arg(long, value_name = "OWNER=FOLDER", num_args = 1.., value_parser = parse_statements)]
    statements: Vec<(String, PathBuf)>,
    #[command(flatten)]
    output: Output,
}

/// Audits, draws, and prints the report.
pub async fn run(arguments: Audit, manifest: &Path) -> Result<u8> {
    let manifest = Manifest::read(manifest)?;
    let mut connection = database::connect(&manifest.source.resolve("source")?).await?;
    let sources = Sources { statements: arguments.statements.into_iter().collect(), watch: arguments.watch };
    let report = audit(&mut connection, &manifest, &sources).await?;
    if let Some(path) = &arguments.map {
        std::fs::write(path, map::svg(&manifest, &report))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    arguments.output.print(&report, || text(&report));
    Ok(if report.errors == 0 { exit::DONE } else { exit::NO })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for (severity, heading) in
        [(Severity::Error, "errors"), (Severity::Warning, "warnings"), (Severity::Tolerated, "tolerated")]
    {
        let mut findings = report.findings.iter().filter(|finding| finding.severity == severity).peekable();
        if findings.peek().is_some() {
            let _ = writeln!(text, "{heading}");
        }
        for finding in findings {
            let Finding { id, detail, replace_by, .. } = finding;
            let _ = writeln!(text, "  {id}{}\n    {detail}", owners(finding));
            let _ = writeln!(text, "    → {replace_by}");
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{}", report.summary());
    text
}

fn owners(finding: &Finding) -> String {
    let Finding { from, to, .. } = finding;
    match (from.is_empty(), to.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("  ({from})"),
        (false, false) => format!("  ({from} → {to})"),
    }
}

fn parse_statements(text: &str) -> Result<(String, PathBuf)> {
    let (owner, folder) = text.split_once('=').context("write owner=folder")?;
    Ok((owner.to_owned(), folder.into()))
}
