//! The audit's findings, and the report that lists them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// A coupling, or a condition that hides couplings.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Identifies the coupling from run to run.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// The object, as a borrowing's `what` names it.
    pub object: String,
    /// The owner that depends on the other.
    pub from: String,
    /// The owners that it depends on, separated by commas.
    pub to: String,
    /// Whether it blocks.
    pub severity: Severity,
    /// What the audit saw.
    pub detail: String,
    /// What can replace the coupling, or what to do.
    pub replace_by: &'static str,
    /// The columns that are used, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeSet<String>>,
    /// The rights that are used, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<BTreeSet<String>>,
}

/// What a finding means for the exit code and for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// No borrowing explains it: the audit fails.
    Error,
    /// It matters when an owner moves.
    Warning,
    /// A borrowing of the manifest explains it.
    Tolerated,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A constraint between two owners' tables.
    ForeignKey,
    /// A view that reads another owner's relation.
    View,
    /// A view that another owner's role may use.
    PublishedView,
    /// A trigger whose function uses another owner's tables.
    Trigger,
    /// A function that uses tables of several owners.
    Function,
    /// A function that runs with its owner's rights, and that another owner's role may call.
    DefinerFunction,
    /// A default that takes another owner's sequence, or calls a function that uses another's tables.
    Default,
    /// A row policy, or a rule, that reads another owner's table.
    Policy,
    /// A table that inherits from another owner's.
    Inheritance,
    /// A right of an owner's role on another owner's relation.
    Grant,
    /// A role that grants do not limit.
    Role,
    /// A type that columns of several owners have.
    SharedType,
    /// A function that expressions or triggers of several owners' tables call.
    SharedFunction,
    /// A table that no owner lists.
    UnlistedTable,
    /// A relation of the manifest that the database does not have.
    Missing,
    /// Statements of an owner that use another owner's relation.
    Statement,
    /// A transaction that wrote tables of several owners.
    Transaction,
    /// A borrowing that nothing needs.
    UnusedBorrowing,
}

/// The name in ids and JSON.
impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

impl Kind {
    /// What can replace such a coupling, or what to do.
    fn replace_by(self) -> &'static str {
        match self {
            Self::ForeignKey => "Keep the id without the constraint, and check it by a call or against a replica.",
            Self::View => "Let the view read a replica: the owner's own table, filled from the other owner's events.",
            Self::PublishedView => "Call the owner, or read a replica that is filled from its events.",
            Self::Trigger => "Check against a replica or by a call, and compensate afterwards for what passed the check.",
            Self::Function => "Write one function for each owner, with a call or an event between them.",
            Self::DefinerFunction => {
                "Revoke execute from the role and from PUBLIC, and offer a call of the service instead."
            }
            Self::Default => "Use a sequence or a key of its own.",
            Self::Policy => {
                "Keep what the policy or rule needs in the owner's own table, filled from the other owner's events."
            }
            Self::Inheritance => "Split it into two tables.",
            Self::Grant => "Revoke it (`splitctl grants` shows how); read a published view or a replica, or call the owner.",
            Self::Role => {
                "Give each owner a role that is not a superuser, owns no other owner's table, and is in no role that does."
            }
            Self::SharedType => {
                "Nothing now. When an owner moves, each database gets a copy, and the copies change independently."
            }
            Self::SharedFunction => "Nothing now. Each database needs a copy of the function when an owner moves.",
            Self::UnlistedTable => "List it in the manifest under the owner that changes it, or as `unowned`.",
            Self::Missing => "Delete it from the manifest, or create it.",
            Self::Statement => "Call the owner, or read a replica that is filled from its events.",
            Self::Transaction => {
                "Commit the tables of one owner with an event in its outbox; the other owner applies the event."
            }
            Self::UnusedBorrowing => "Delete it from the manifest: the list only shrinks.",
        }
    }
}

impl Finding {
    /// A coupling, which is an error until a borrowing explains it. Its id ends with its object.
    pub fn new(kind: Kind, object: impl Into<String>, from: &str, to: &str, detail: impl Into<String>) -> Self {
        let object = object.into();
        Self {
            id: format!("{kind}:{object}"),
            kind,
            object,
            from: from.to_owned(),
            to: to.to_owned(),
            severity: Severity::Error,
            detail: detail.into(),
            replace_by: kind.replace_by(),
            columns: None,
            rights: None,
        }
    }

    /// Adds the owner to the id, for kinds where several owners can have a finding on one object.
    pub fn by(mut self) -> Self {
        self.id = format!("{}:{}:{}", self.kind, self.from, self.object);
        self
    }

    /// The same finding as a warning.
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

/// The audit's result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Errors first, then warnings, then tolerated findings.
    pub findings: Vec<Finding>,
    /// The number of errors.
    pub errors: usize,
    /// The number of warnings.
    pub warnings: usize,
    /// The number of tolerated findings.
    pub tolerated: usize,
    /// What the audit left out, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Sorts and counts the findings.
    pub fn new(mut findings: Vec<Finding>, notes: Vec<String>) -> Self {
        findings.sort_by(|a, b| (a.severity, a.kind, &a.id).cmp(&(b.severity, b.kind, &b.id)));
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, tolerated) = (count(Severity::Error), count(Severity::Warning), count(Severity::Tolerated));
        Self { findings, errors, warnings, tolerated, notes }
    }

    /// The counts in words.
    pub fn summary(&self) -> String {
        let counted = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let Self { errors, warnings, tolerated, .. } = self;
        format!("{}, {}, {tolerated} tolerated", counted(*errors, "error"), counted(*warnings, "warning"))
    }
}
