//! The manifest's borrowings: which findings they explain, which have ended, and which nothing needs any more.

use std::collections::BTreeSet;

use super::finding::{Finding, Kind, Severity};
use crate::manifest::{Borrowing, Manifest};

/// The separator between the tables of a transaction's finding.
pub const TOGETHER: &str = " + ";

/// Applies the borrowings to the findings. `today` is the database's day, as 2027-01-31.
pub fn apply(manifest: &Manifest, today: &str, findings: &mut Vec<Finding>, notes: &mut Vec<String>) {
    let mut used = vec![false; manifest.borrowings.len()];
    // A relation that is missing cannot be borrowed.
    for finding in findings.iter_mut().filter(|finding| finding.kind != Kind::Missing) {
        for (borrowing, used) in manifest.borrowings.iter().zip(&mut used) {
            if !explains(borrowing, finding) {
                continue;
            }
            *used = true;
            if borrowing.until.as_str() < today {
                finding.detail.push_str(&format!(" (was tolerated until {})", borrowing.until));
            } else if let Some(beyond) = beyond(borrowing, finding) {
                finding.detail.push_str(&format!(" (the borrowing does not cover {beyond})"));
            } else {
                finding.severity = Severity::Tolerated;
                finding.detail.push_str(&format!(" (tolerated until {}: {})", borrowing.until, borrowing.why));
                break;
            }
        }
    }
    for (borrowing, used) in manifest.borrowings.iter().zip(used) {
        let Borrowing { who, what, .. } = borrowing;
        if used {
        } else if what.contains(TOGETHER) {
            // A transaction that one watch missed may still exist.
            notes.push(format!(
                "no transaction of {who} wrote {what} while it was watched: watch longer, or ask {who} whether it still does"
            ));
        } else if findings.iter().any(|finding| finding.kind == Kind::Role && finding.from == *who) {
            notes.push(format!("whether {who} still needs {what} is unknown, because grants do not limit its role"));
        } else {
            let detail = format!("{who} uses no {what} of another owner");
            findings.push(Finding::new(Kind::UnusedBorrowing, what, who, "", detail).by());
        }
    }
}

/// Whether the borrowing names the finding's object and the owner that depends on it.
pub fn explains(borrowing: &Borrowing, finding: &Finding) -> bool {
    borrowing.who == finding.from && borrowing.what == finding.object
}

/// The rights or columns of the finding that the borrowing does not allow. An empty list allows all.
fn beyond(borrowing: &Borrowing, finding: &Finding) -> Option<String> {
    let lacks = |allowed: &[String], used: &Option<BTreeSet<String>>, matches: fn(&str, &str) -> bool| {
        let used = used.iter().flatten().filter(|_| !allowed.is_empty());
        let allows = |name: &String| allowed.iter().any(|allowed| matches(allowed, name));
        let lacks: Vec<&str> = used.filter(|name| !allows(name)).map(String::as_str).collect();
        (!lacks.is_empty()).then(|| lacks.join(", "))
    };
    lacks(&borrowing.rights, &finding.rights, str::eq_ignore_ascii_case)
        .or_else(|| lacks(&borrowing.columns, &finding.columns, |allowed, used| allowed == used))
}
