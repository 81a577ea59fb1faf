//! The table of all faults.

use std::time::Duration;

use super::inject::{Fault, Note, Refusals};
use super::oracle::Verdict;
use super::tally::Tally;

/// The longest time to any answer. A debug build is for tests, on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 5 });

/// What one fault has done.
pub struct Outcome {
    fault: Fault,
    /// Why it was not tried; else what there is to say beside the figures.
    note: Option<String>,
    tally: Option<Tally>,
    /// From the fault's end until each client has succeeded again.
    back: Duration,
    /// What should not have happened.
    harm: Vec<String>,
}

impl Outcome {
    pub fn new(fault: Fault, note: Note, tally: Tally, back: Duration) -> Self {
        let mut harm = note.harm;
        if tally.wrong.0 > 0 {
            harm.push(format!("{} wrong answers, such as {}", tally.wrong.0, tally.wrong.1.join("; ")));
        }
        if tally.unanswered > 0 {
            harm.push(format!("{} requests without an answer", tally.unanswered));
        }
        let refused = match fault.may_refuse() {
            Refusals::None => tally.refused,
            Refusals::Writes => tally.refused_reads,
            Refusals::All => 0,
        };
        if refused > 0 {
            harm.push(format!("{refused} refused requests, such as {}", tally.refusals.join("; ")));
        }
        if tally.worst > LONGEST {
            harm.push(format!("an answer after {:.1} s", tally.worst.as_secs_f64()));
        }
        Self { fault, note: note.text, tally: Some(tally), back, harm }
    }

    pub fn skipped(fault: Fault, reason: String) -> Self {
        Self { fault, note: Some(reason), tally: None, back: Duration::ZERO, harm: Vec::new() }
    }

    /// Its row of the table.
    pub fn row(&self) -> String {
        let title = self.fault.title();
        let note = self.note.as_deref().unwrap_or_default();
        let Some(tally) = &self.tally else { return format!("| {title} | – | – | – | – | not tried: {note} |") };
        let verdict = if self.harm.is_empty() { note.to_owned() } else { format!("**failed**: {}", self.harm.join("; ")) };
        let Tally { requests, refused, .. } = tally;
        let (worst, back) = (tally.worst.as_secs_f64(), self.back.as_secs_f64());
        format!("| {title} | {requests} | {refused} | {worst:.2} s | {back:.1} s | {verdict} |")
    }
}

/// What all faults have done.
pub struct Report {
    pub outcomes: Vec<Outcome>,
    pub verdict: Verdict,
}

impl Report {
    /// Whether no fault did more harm than it may.
    pub fn is_sound(&self) -> bool {
        let Verdict { acknowledged, lost, doubled } = self.verdict;
        self.outcomes.iter().all(|outcome| outcome.harm.is_empty()) && acknowledged > 0 && lost == 0 && doubled == 0
    }

    /// The table, in Markdown.
    pub fn text(&self) -> String {
        let mut lines = vec![
            "| fault | requests | of them 503 | slowest answer | back after | |".to_owned(),
            "|---|--:|--:|--:|--:|---|".to_owned(),
        ];
        lines.extend(self.outcomes.iter().map(Outcome::row));
        let Verdict { acknowledged, lost, doubled } = self.verdict;
        lines.push(format!("\n{acknowledged} acknowledged writes: {lost} lost, {doubled} doubled."));
        lines.join("\n")
    }
}
