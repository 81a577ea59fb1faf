//! What a proof finds.

use serde::Serialize;

use super::known::Statement;
use crate::manifest::Owner;
use crate::moving::Side;
use crate::moving::plan::Weight;
use crate::names::Qualified;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// An error refuses the switch.
    pub weight: Weight,
    /// The statement, table or setting.
    pub subject: String,
    /// What is wrong, and what to do.
    pub text: String,
    /// The server's SQLSTATE, if it refused a statement.
    pub sqlstate: Option<String>,
    /// The statement, without literals.
    pub statement: Option<String>,
}

/// A statement that no server prepares as it is known.
#[derive(Debug, Clone, Serialize)]
pub struct Unchecked {
    /// The statement, without literals, and where it is known from.
    pub statement: String,
    /// Why.
    pub why: String,
}

/// What a write to a table did.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// The table.
    pub table: Qualified,
    /// What was tried: insert, update, delete.
    pub write: &'static str,
    /// "done", or why not.
    pub result: String,
}

/// The proof of one side.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The proven side.
    pub side: Side,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
    /// The number of statements that were checked.
    pub statements: usize,
    /// The statements that were not.
    pub unchecked: Vec<Unchecked>,
    /// What was done with each table.
    pub written: Vec<Written>,
    /// Functions and triggers that reach outside of the database.
    pub outside: Vec<String>,
    /// Whether the application's own login was used.
    pub own_login: bool,
}

impl Proof {
    pub(super) fn of(side: Side) -> Self {
        let (findings, unchecked, written, outside) = Default::default();
        Self { side, findings, statements: 0, unchecked, written, outside, own_login: false }
    }

    /// The findings that refuse a switch.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Error)
    }

    pub(super) fn add(&mut self, owner: &Owner, finding: Finding) {
        let entry = format!("proof: {}", finding.subject);
        let mut finding = finding;
        if finding.weight == Weight::Error {
            if owner.accept.contains(&entry) {
                finding.weight = Weight::Warning;
                finding.text += ". The manifest accepts it";
            } else {
                finding.text +=
                    &format!(". To go on all the same, add \"{entry}\" to `accept` of the owner in the manifest");
            }
        }
        self.findings.push(finding);
    }
}

impl Unchecked {
    pub(super) fn of(statement: &Statement, why: String) -> Self {
        Self { statement: format!("{} ({})", statement.shown(), statement.place), why }
    }
}

impl Finding {
    pub(super) fn new(weight: Weight, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { weight, subject: subject.into(), text: text.into(), sqlstate: None, statement: None }
    }
}
