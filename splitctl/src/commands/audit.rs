//! `splitctl audit`: every coupling in one list.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::audit::{Finding, Report, Severity, Sources, audit, map};
use crate::database;
use crate::exit;
use crate::manifest::Manifest;
use crate::output::Output;

/// Its flags.
#[derive(Debug, Args)]
pub struct Audit {
    /// Watch transactions for so long (500ms, 60s, 5m, 1h): which of them write tables of two owners
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    watch: Option<Duration>,
    /// Draw the couplings into this file
    #[arg(long, value_name = "FILE.svg")]
    map: Option<PathBuf>,
    /// The sqlx offline data of an owner, instead of the manifest's
    #[arg(long, value_name = "OWNER=FOLDER", num_args = 1.., value_parser = parse_statements)]
    statements: Vec<(String, PathBuf)>,
    #[command(flatten)]
    output: Output,
}

/// Looks, draws and tells.
pub async fn run(arguments: Audit, manifest: &Path) -> Result<u8> {
    let manifest = Manifest::read(manifest)?;
    let mut connection = database::connect(&manifest.source.resolve("source")?).await?;
    let sources = Sources { statements: arguments.statements.into_iter().collect(), watch: arguments.watch };
    let report = audit(&mut connection, &manifest, &sources).await?;
    if let Some(path) = &arguments.map {
        std::fs::write(path, map::svg(&manifest, &report))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    arguments.output.tell(&report, || text(&report));
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

fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || anyhow!("write a duration as 500ms, 60s, 5m or 1h");
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|number| *number > 0).map(Duration::from_millis).ok_or_else(wrong)
}

fn parse_statements(text: &str) -> Result<(String, PathBuf)> {
    let (owner, folder) = text.split_once('=').context("write owner=folder")?;
    Ok((owner.to_owned(), folder.into()))
}
