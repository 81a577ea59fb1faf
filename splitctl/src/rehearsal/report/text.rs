//! The report as lines.

use super::{Expected, Report, Step, shown};

/// Findings first, then the steps, then the verdict.
pub fn write(report: &Report) -> String {
    let mut lines = Vec::new();
    for finding in &report.plan {
        lines.push(format!("{}: plan: {}: {}", finding.weight, finding.check, finding.text));
    }
    for finding in &report.findings {
        lines.push(format!("{}: {}: {}", finding.weight, finding.step, finding.text));
    }
    lines.extend(report.unchecked.iter().map(|line| format!("unchecked: {line}")));
    for Step { name, seconds, said } in &report.steps {
        lines.push(format!("{name}: {seconds:.1} s: {said}"));
    }
    for Expected { what, value, how } in &report.expected {
        lines.push(format!("estimate: {what}: {value} ({how})"));
    }
    lines.push(verdict(report));
    lines.join("\n")
}

/// The sentence that sums up.
pub fn verdict(report: &Report) -> String {
    let (owner, errors) = (&report.owner, shown::count_of(report.errors, "error"));
    match (report.errors, report.finished) {
        (0, true) => format!("the rehearsal of {owner} went out, back and out again without an error"),
        (_, true) => format!("the rehearsal of {owner} went out, back and out again, and found {errors}"),
        (_, false) => format!("the rehearsal of {owner} stopped, and found {errors}"),
    }
}
