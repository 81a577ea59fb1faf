//! What the audit says: findings, and the document they make.

use std::collections::BTreeSet;

use serde::Serialize;

/// One coupling, or one thing that keeps couplings from being known.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The same at each run, as long as it is the same coupling.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// What a borrowing's `what` names.
    pub object: String,
    /// The owner that depends on the other.
    pub from: String,
    /// The owner depended on; several with commas between.
    pub to: String,
    /// Whether it blocks.
    pub severity: Severity,
    /// What was seen.
    pub detail: String,
    /// What takes its place, or what to do.
    pub replace_by: &'static str,
    /// The columns used, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeSet<String>>,
    /// The rights used, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<BTreeSet<String>>,
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It blocks.
    Error,
    /// It has to be known when an owner moves.
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
    /// A view that reads what another owner has.
    View,
    /// A view that another owner's role may use.
    PublishedView,
    /// A trigger whose function uses another owner's tables.
    Trigger,
    /// A function that uses tables of several owners.
    Function,
    /// A function with its owner's rights that another owner's role may call.
    DefinerFunction,
    /// A default that takes another owner's sequence, or calls a function that uses another's tables.
    Default,
    /// A row policy, or a rule, that reads another owner's table.
    Policy,
    /// A table that inherits from another owner's.
    Inheritance,
    /// A right of one owner's role on what another has.
    Grant,
    /// A role that no grant can hold back.
    Role,
    /// A type of columns of several owners.
    SharedType,
    /// A function that expressions or triggers of several owners' tables call.
    SharedFunction,
    /// A table that no owner lists.
    UnlistedTable,
    /// A relation of the manifest that the database does not have.
    Missing,
    /// Statements of one owner that use what another has.
    Statement,
    /// A transaction that wrote tables of several owners.
    Transaction,
    /// A borrowing that nothing needs.
    UnusedBorrowing,
}

impl Kind {
    /// As in ids and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForeignKey => "foreign-key",
            Self::View => "view",
            Self::PublishedView => "published-view",
            Self::Trigger => "trigger",
            Self::Function => "function",
            Self::DefinerFunction => "definer-function",
            Self::Default => "default",
            Self::Policy => "policy",
            Self::Inheritance => "inheritance",
            Self::Grant => "grant",
            Self::Role => "role",
            Self::SharedType => "shared-type",
            Self::SharedFunction => "shared-function",
            Self::UnlistedTable => "unlisted-table",
            Self::Missing => "missing",
            Self::Statement => "statement",
            Self::Transaction => "transaction",
            Self::UnusedBorrowing => "unused-borrowing",
        }
    }

    /// What takes its place, or what to do.
    fn replace_by(self) -> &'static str {
        match self {
            Self::ForeignKey => "Keep the id without the constraint, and check it by a call or against a replica.",
            Self::View => "Let the view read a replica: a table of its own, fed from the other's events.",
            Self::PublishedView => "Call the owner, or read a replica fed from its events.",
            Self::Trigger => "Check against a replica or by a call, and settle afterwards what slips through.",
            Self::Function => "One function for each owner, with a call or an event between them.",
            Self::DefinerFunction => {
                "Revoke execute from the role and from PUBLIC, and offer a call of the service instead."
            }
            Self::Default => "Use a sequence or a key of its own.",
            Self::Policy => "Keep what the policy or rule needs in a table of its own, fed from the other's events.",
            Self::Inheritance => "Make two tables of it.",
            Self::Grant => "Revoke it (`splitctl grants` shows how); read a published view or a replica, or call the owner.",
            Self::Role => {
                "Give each owner a role that is no superuser, owns no table of another, and is no member of one that does."
            }
            Self::SharedType => {
                "Nothing now; each database gets a copy of it when an owner moves, and they part from then on."
            }
            Self::SharedFunction => "Nothing now; each database needs a copy of it when an owner moves.",
            Self::UnlistedTable => "List it in the manifest under the owner that changes it.",
            Self::Missing => "Delete it from the manifest, or create it.",
            Self::Statement => "Call the owner, or read a replica fed from its events.",
            Self::Transaction => "Commit for one owner with an event in its outbox, and let the other follow.",
            Self::UnusedBorrowing => "Delete it from the manifest: the list only shrinks.",
        }
    }
}

impl Finding {
    /// A coupling: an error until a borrowing explains it. Its id ends with its object.
    pub fn new(kind: Kind, object: impl Into<String>, from: &str, to: &str, detail: impl Into<String>) -> Self {
        let object = object.into();
        Self {
            id: format!("{}:{object}", kind.name()),
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

    /// For kinds of which several owners may have one with the same object.
    pub fn by(mut self) -> Self {
        self.id = format!("{}:{}:{}", self.kind.name(), self.from, self.object);
        self
    }

    /// The same as a warning.
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Errors first, then warnings, then what is tolerated.
    pub findings: Vec<Finding>,
    /// How many errors.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// How many are tolerated.
    pub tolerated: usize,
    /// What was not looked at, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Sorts and counts.
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
