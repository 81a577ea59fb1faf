//! What a rehearsal has found, for people and for programs.

mod page;
mod pictures;
pub mod shown;
mod text;

use anyhow::Result;
use askama::Template;
use serde::Serialize;

use super::fingerprint::Fingerprint;
use super::load::Tally;
use super::rows::Choice;
use crate::moving::cutover::Pause;
use crate::moving::plan::Weight;
use crate::moving::{Side, plan};
use crate::names::Qualified;
use crate::proof::Proof;

/// The whole report.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The owner.
    pub owner: String,
    /// When it began, in UTC.
    pub at: String,
    /// How long it took.
    pub seconds: f64,
    /// Who ran it: the user of the machine, and the role in the source.
    pub by: String,
    /// The version of splitctl.
    pub splitctl: String,
    /// The databases that were read.
    pub servers: Vec<Server>,
    /// Where the stand-ins were.
    pub scratch: String,
    /// Which rows were used.
    pub rows: Option<Choice>,
    /// What moves.
    pub tables: Vec<Moving>,
    /// The findings of the plan of the real databases.
    pub plan: Vec<plan::Finding>,
    /// What the rehearsal found.
    pub findings: Vec<Finding>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The switches, in order.
    pub switches: Vec<Switched>,
    /// The proofs, in order.
    pub proofs: Vec<Proof>,
    /// What to expect of the real move.
    pub expected: Vec<Expected>,
    /// The definitions that were rehearsed.
    pub fingerprint: Option<Fingerprint>,
    /// What was not checked, or differs from the real databases.
    pub unchecked: Vec<String>,
    /// Whether the way was gone to its end.
    pub finished: bool,
    /// The number of errors in the plan and in the findings.
    pub errors: usize,
}

/// An estimate of the real move.
#[derive(Debug, Clone, Serialize)]
pub struct Expected {
    /// What is estimated.
    pub what: String,
    /// The estimate.
    pub value: String,
    /// How it was made.
    pub how: String,
}

/// A database.
#[derive(Debug, Serialize)]
pub struct Server {
    /// Its side.
    pub side: Side,
    /// Host, port and name.
    pub address: String,
    /// The server's major version.
    pub version: i32,
}

/// A table that moves.
#[derive(Debug, Serialize)]
pub struct Moving {
    /// Its name.
    pub name: Qualified,
    /// The number of its rows, as the statistics estimate it.
    pub rows: i64,
    /// The size in the source, without indexes, in bytes.
    pub bytes: i64,
    /// The rows that the rehearsal moved.
    pub rehearsed: u64,
}

/// A finding of the rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Its weight.
    pub weight: Weight,
    /// The step that found it.
    pub step: String,
    /// The object, what is wrong with it, and what to do.
    pub text: String,
}

/// A step.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// What it did.
    pub said: String,
}

/// A switch.
#[derive(Debug, Serialize)]
pub struct Switched {
    /// The side where the tables live from then on.
    pub lives: Side,
    /// How long writers waited.
    pub pause: Pause,
    /// What the application met meanwhile.
    pub load: Tally,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, weight: Weight, step: &str, text: impl Into<String>) {
        let text = text.into();
        // A warning or a note of each proof is said once.
        if self.findings.iter().any(|known| known.weight == weight && known.text == text) {
            return;
        }
        self.errors += usize::from(weight == Weight::Error);
        self.findings.push(Finding { weight, step: step.to_owned(), text });
    }

    /// Takes the findings of the plan of the real databases.
    pub fn take_plan(&mut self, findings: Vec<plan::Finding>) {
        self.errors += findings.iter().filter(|finding| finding.weight == Weight::Error).count();
        self.plan = findings;
    }

    /// Takes a proof, and what it did not check. The source needs no such list: there the application works today.
    pub fn take_proof(&mut self, proof: Proof, reach_outside: bool) {
        let mut lines = Vec::new();
        if proof.side == Side::Target {
            lines.extend(proof.unchecked.iter().map(|one| format!("{}: {}", one.statement, one.why)));
            let untried = proof.written.iter().filter(|written| written.result.starts_with("not tried"));
            lines.extend(untried.map(|written| format!("{} on {}: {}", written.write, written.table, written.result)));
        }
        if !reach_outside {
            let outside = proof.outside.iter();
            lines.extend(outside.map(|one| format!("{one}: it reaches outside of the database, see --reach-outside")));
        }
        lines.retain(|line| !self.unchecked.contains(line));
        self.unchecked.extend(lines);
        self.proofs.push(proof);
    }

    /// The report as a page that needs no other file.
    pub fn page(&self) -> Result<String> {
        Ok(page::Page::new(self).render()?)
    }

    /// The report as lines.
    pub fn text(&self) -> String {
        text::write(self)
    }
}
