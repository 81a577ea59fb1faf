//! The draft as a text with comments, for a person to correct.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::owners::{Reason, UNASSIGNED};
use crate::manifest::{Borrowing, Manifest, Owner};
use crate::names::Qualified;

const HEAD: &str = "\
# Who owns what in the shared database: a draft from its grants, foreign keys and names. Correct it.
# `splitctl audit` compares this file with the database, `splitctl grants` with the roles' rights.
";

const UNOWNED_HEAD: &str = "
# Tables of migration tools: each database has its own. A move copies them once, and never drops them.
";

const UNASSIGNED_HEAD: &str = "
# No grant, foreign key or name shows an owner of these tables. Move each table to the owner that changes it, and delete
# this entry.
";

const BORROWINGS_HEAD: &str = "
# What crosses between two owners today. The audit tolerates each borrowing until its day. The list only shrinks.
";

/// The manifest's text. `reasons` explain the owners of tables.
pub fn text(manifest: &Manifest, reasons: &BTreeMap<Qualified, Reason>) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "source = {}", quoted(&manifest.source.0));
    if !manifest.unowned.is_empty() {
        let unowned: Vec<String> = manifest.unowned.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{UNOWNED_HEAD}unowned = {}", array(&unowned));
    }
    for (name, owner) in &manifest.owners {
        draft_owner(&mut text, name, owner, reasons);
    }
    if !manifest.borrowings.is_empty() {
        text.push_str(BORROWINGS_HEAD);
    }
    for Borrowing { who, what, columns, rights, why, until, .. } in &manifest.borrowings {
        let _ = writeln!(text, "\n[[borrowings]]\nwho = {}\nwhat = {}", quoted(who), quoted(what));
        for (name, list) in [("columns", columns), ("rights", rights)] {
            if !list.is_empty() {
                let _ = writeln!(text, "{name} = {}", array(list));
            }
        }
        let _ = writeln!(text, "why = {}\nuntil = {}", quoted(why), quoted(until));
    }
    text
}

fn draft_owner(text: &mut String, name: &str, owner: &Owner, reasons: &BTreeMap<Qualified, Reason>) {
    let upper = name.to_uppercase();
    if owner.role == UNASSIGNED {
        text.push_str(UNASSIGNED_HEAD);
    } else {
        text.push('\n');
    }
    let _ = writeln!(text, "[owners.{name}]\nrole = {}\ntables = [", quoted(&owner.role));
    for table in &owner.tables {
        let reason = match reasons.get(table) {
            Some(Reason::ForeignKeys) => " # by its foreign keys",
            Some(Reason::Name) => " # by its name",
            _ => "",
        };
        let _ = writeln!(text, "    {},{reason}", quoted(&table.to_string()));
    }
    text.push_str("]\n");
    if !owner.views.is_empty() {
        let views: Vec<String> = owner.views.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "views = {}", array(&views));
    }
    if owner.role != UNASSIGNED {
        let _ = writeln!(text, "# statements = \"services/{name}/.sqlx\" # its sqlx offline data, relative to this file");
        let _ = writeln!(text, "# target = \"${upper}_TARGET_URL\" # the database that it will move to, as an operator");
    }
    if !owner.rights.is_empty() {
        let _ = writeln!(text, "\n[owners.{name}.rights]");
        for (relation, rights) in &owner.rights {
            let _ = writeln!(text, "{} = {}", quoted(&relation.to_string()), array(rights));
        }
    }
}

fn array(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            character if character.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
