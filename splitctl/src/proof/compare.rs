//! What two servers say of a statement, side by side: what works on one side must work on the other, and mean the same.

use std::collections::BTreeSet;

use super::Unchecked;
use super::known::{Origin, Statement};
use super::names::{Names, words};
use super::plans::{Answer, Plan, Refusal, Signature};
use crate::moving::Side;
use crate::moving::plan::Weight;
use crate::names::Qualified;

/// What the statements are compared by.
pub(super) struct Comparison<'a> {
    /// The side that is proven.
    pub on: Side,
    /// The role there.
    pub role: &'a str,
    /// The owner's relations, as the other side has them.
    pub moving: &'a BTreeSet<Qualified>,
    /// Whether the role also works for another owner.
    pub is_shared: bool,
    /// What names mean on the other side.
    pub before: &'a Names,
    /// What names mean on the proven side.
    pub after: &'a Names,
}

/// The result for a statement.
pub(super) enum Verdict {
    /// It works on the proven side as it does on the other.
    Works,
    /// Another part of the application runs it, on tables that stay.
    Foreign,
    /// It cannot be compared.
    Unchecked(Unchecked),
    /// It differs: how, what to do, and the server's SQLSTATE.
    Differs(Weight, String, Option<String>),
}

impl Comparison<'_> {
    /// Judges a statement by the answers of the other side and of the proven side.
    pub fn judge(&self, statement: &Statement, before: &Answer, after: &Answer) -> Verdict {
        let is_built = statement.origin == Origin::Built;
        let unchecked =
            |why: String| if is_built { Verdict::Works } else { Verdict::Unchecked(Unchecked::of(statement, why)) };
        let used = match before {
            Answer::Planned(_, plan) => plan.relations.clone(),
            _ => BTreeSet::new(),
        };
        let is_of_others = self.is_shared && statement.origin == Origin::Run && used.is_disjoint(self.moving);
        if is_of_others && !used.is_empty() {
            return Verdict::Foreign;
        }
        let verdict = match (before, after) {
            (Answer::Unprepared(refusal), _) => {
                return unchecked(format!("the {} does not prepare it either: {}", self.on.other(), refusal.message));
            }
            (Answer::Unplanned(one), Answer::Unplanned(other)) if one.sqlstate == other.sqlstate => {
                return unchecked(format!("no side plans it: {}", other.message));
            }
            (_, Answer::Unprepared(refusal) | Answer::Unplanned(refusal)) => self.refused(statement, refusal, &used),
            (Answer::Planned(_, plan), _) if !plan.is_planned => {
                return unchecked("Postgres makes no plan for such a command".to_owned());
            }
            (Answer::Planned(one, plan), Answer::Planned(other, other_plan)) => {
                let differs = relations(plan, other_plan).or_else(|| self.meanings(statement));
                let differs = differs.or_else(|| signatures(one, other));
                differs.map_or(Verdict::Works, |text| {
                    Verdict::Differs(Weight::Error, text.replace("{before}", &self.on.other().to_string()), None)
                })
            }
            (Answer::Unplanned(_), Answer::Planned(..)) => Verdict::Works,
        };
        match verdict {
            Verdict::Differs(_, text, sqlstate) if is_of_others => Verdict::Differs(Weight::Warning, text, sqlstate),
            verdict => verdict,
        }
    }

    fn refused(&self, statement: &Statement, refusal: &Refusal, used: &BTreeSet<Qualified>) -> Verdict {
        if refusal.is_of_the_moment() {
            return Verdict::Unchecked(Unchecked::of(statement, refusal.said()));
        }
        let weight = if refusal.is_rule() { Weight::Note } else { Weight::Error };
        let advice = self.advise(&statement.text, refusal, used);
        let text = format!("{}. It works on the {}. {advice}", refusal.said(), self.on.other());
        Verdict::Differs(weight, text, Some(refusal.sqlstate.clone()))
    }

    /// What to do about a refusal: first about the objects that only the other side has.
    pub fn advise(&self, statement: &str, refusal: &Refusal, used: &BTreeSet<Qualified>) -> String {
        let missing = self.missing(statement, used);
        if !missing.is_empty() && refusal.sqlstate != "42501" {
            return missing.join(". ");
        }
        let (on, role) = (self.on, self.role);
        match refusal.sqlstate.as_str() {
            "42501" if refusal.message.contains("row-level security") => {
                format!("Compare the row policies of both sides, and the settings that they read, for {role}")
            }
            "42501" => {
                let denied = self.denied(statement);
                format!("Grant {role} on the {on} the right that it has on the {}{denied}", on.other())
            }
            "42703" | "42702" => {
                format!("Compare the columns of both sides: `splitctl plan` names what differs in the {on}")
            }
            "0A000" => format!("Compare the versions and extensions of both servers, or change the statement for the {on}"),
            _ => format!("Create on the {on} what it needs, or change the statement"),
        }
    }

    /// The objects that the statement finds on the other side, and not on the proven side.
    fn missing(&self, statement: &str, used: &BTreeSet<Qualified>) -> Vec<String> {
        let (on, role) = (self.on, self.role);
        let mut missing = BTreeSet::new();
        for word in words(statement) {
            let is_meant = |object: &&super::names::Object| match &word.schema {
                Some(schema) => *schema == object.schema,
                None => object.is_visible,
            };
            for object in self.before.of(&word.name).iter().filter(is_meant) {
                let same = self
                    .after
                    .of(&word.name)
                    .iter()
                    .find(|other| (&other.kind, &other.identity) == (&object.kind, &object.identity));
                let (kind, identity) = (&object.kind, &object.identity);
                let holds_rows = matches!(kind.as_str(), "table" | "view" | "materialized view");
                let name = Qualified::new(&*object.schema, &*object.name);
                match same {
                    // A column or an alias may have the name of a table.
                    None if holds_rows && !used.is_empty() && kind == "table" && !used.contains(&name) => {}
                    None if holds_rows && !self.moving.contains(&name) => {
                        missing.insert(format!(
                            "The {kind} {identity} stays in the {}: list it under the owner, change the statement, or put \
                             a table of the {on} behind the name",
                            on.other()
                        ));
                    }
                    None => {
                        missing.insert(format!("The {on} has no {kind} {identity}: create it there"));
                    }
                    Some(same) if !same.is_open => {
                        missing.insert(format!(
                            "{role} may not use the schema of the {kind} {identity} there: run `grant usage on schema {} \
                             to {role}` on the {on}",
                            object.schema
                        ));
                    }
                    Some(same) if word.schema.is_none() && !same.is_visible => {
                        missing.insert(format!(
                            "The {on} has the {kind} {identity}, and the search_path of {role} does not find it: set the \
                             search_path there as on the {}",
                            on.other()
                        ));
                    }
                    Some(_) => {}
                }
            }
        }
        missing.into_iter().collect()
    }

    /// Statements that may give a right: for schemas and functions that the statement names.
    fn denied(&self, statement: &str) -> String {
        let (mut shown, role) = (BTreeSet::new(), self.role);
        for word in words(statement) {
            for object in self.after.of(&word.name) {
                if !object.is_open && word.schema.as_deref().is_none_or(|schema| schema == object.schema) {
                    shown.insert(format!("`grant usage on schema {} to {role}`", object.schema));
                } else if object.kind == "function" && word.is_called {
                    shown.insert(format!("`grant execute on function {} to {role}`", object.identity));
                }
            }
        }
        let shown: Vec<String> = shown.into_iter().collect();
        if shown.is_empty() { String::new() } else { format!(", such as {}", shown.join(", ")) }
    }

    /// Functions, types and the like that a name finds in other schemas than on the other side.
    fn meanings(&self, statement: &Statement) -> Option<String> {
        let (on, role) = (self.on, self.role);
        for word in words(&statement.text).iter().filter(|word| word.schema.is_none()) {
            let kinds: &[&str] = match (word.is_text, word.is_called) {
                (true, _) => &["sequence", "text search configuration"],
                (false, true) => &["function"],
                (false, false) => &["type", "collation"],
            };
            for kind in kinds {
                let (before, after) = (self.before.visible(&word.name, kind), self.after.visible(&word.name, kind));
                if !before.is_empty() && !after.is_empty() && before.is_disjoint(&after) {
                    let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
                    return Some(format!(
                        "the {kind} {} is {} on the {{before}}, and {} on the {on}: set the search_path of {role} there so \
                         that it finds the same",
                        word.name,
                        list(before),
                        list(after)
                    ));
                }
            }
        }
        None
    }
}

/// How parameters and results differ.
fn signatures(before: &Signature, after: &Signature) -> Option<String> {
    let of = |(name, of): &(String, String)| format!("{name} {of}");
    let pairs = |one: Vec<String>, other: Vec<String>, what: &str| {
        (one != other).then(|| {
            format!(
                "its {what} are ({}) on the {{before}}, and ({}) on the other side: make the types and columns the same",
                one.join(", "),
                other.join(", ")
            )
        })
    };
    pairs(before.columns.iter().map(of).collect(), after.columns.iter().map(of).collect(), "columns")
        .or_else(|| pairs(before.parameters.clone(), after.parameters.clone(), "parameters"))
}

/// A table that is another one of the same name on the other side.
fn relations(before: &Plan, after: &Plan) -> Option<String> {
    let schemas = |plan: &Plan, name: &str| {
        plan.relations.iter().filter(|one| one.name == name).map(|one| one.schema.clone()).collect::<BTreeSet<_>>()
    };
    before.relations.iter().find_map(|relation| {
        let (one, other) = (schemas(before, &relation.name), schemas(after, &relation.name));
        let list = |schemas: BTreeSet<String>| {
            let names = schemas.into_iter().map(|schema| Qualified::new(schema, &*relation.name).to_string());
            names.collect::<Vec<_>>().join(", ")
        };
        (!other.is_empty() && one != other).then(|| {
            format!(
                "it uses {} on the {{before}}, and another table of that name on the other side, {}: set the search_path \
                 there so that it finds the same, or write the schema",
                list(one),
                list(other)
            )
        })
    })
}
