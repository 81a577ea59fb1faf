//! The report as one page of HTML that needs nothing else: no network, no script.

use askama::Template;

use super::pictures::{self, Picture};
use super::shown;
use super::text::verdict;
use super::{Finding, Report};
use crate::moving::plan::Weight;

/// The page.
#[derive(Template)]
#[template(path = "rehearsal.html")]
pub struct Page<'a> {
    report: &'a Report,
    verdict: String,
    warnings: usize,
    rows: i64,
    bytes: i64,
    longest: f64,
    /// Errors and warnings of the plan and the rehearsal, errors first.
    found: Vec<Finding>,
    /// Notes of both.
    notes: Vec<Finding>,
    steps: Picture,
    tables: Picture,
    pauses: Picture,
}

impl<'a> Page<'a> {
    /// Collects what the page shows.
    pub fn new(report: &'a Report) -> Self {
        let of_the_plan = report.plan.iter().map(|finding| Finding {
            weight: finding.weight,
            step: "plan".to_owned(),
            text: format!("{}: {}", finding.check, finding.text),
        });
        let mut found: Vec<Finding> = report.findings.iter().cloned().chain(of_the_plan).collect();
        found.sort_by_key(|finding| finding.weight);
        let (notes, found): (Vec<Finding>, Vec<Finding>) =
            found.into_iter().partition(|finding| finding.weight == Weight::Note);
        Self {
            report,
            verdict: verdict(report),
            warnings: found.iter().filter(|finding| finding.weight == Weight::Warning).count(),
            rows: report.tables.iter().map(|table| table.rows.max(0)).sum(),
            bytes: report.tables.iter().map(|table| table.bytes).sum(),
            longest: report.switches.iter().map(|switch| switch.pause.total).fold(0.0, f64::max),
            found,
            notes,
            steps: pictures::steps(report),
            tables: pictures::tables(report),
            pauses: pictures::pauses(report),
        }
    }

    /// The pieces of a text, and whether each is code: what stands between backticks.
    fn pieces(text: &str) -> impl Iterator<Item = (bool, &str)> {
        text.split('`').enumerate().map(|(at, piece)| (at % 2 == 1, piece))
    }
}
