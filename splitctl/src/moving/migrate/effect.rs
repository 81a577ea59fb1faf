//! What a statement does to the definitions, and in which order both sides can bear it.

use super::planned::Way;
use super::script::Statement;
use super::seen::{Column, Seen};
use crate::names::{Qualified, quote_ident};

/// Why no partition may be detached.
pub const DETACHED: &str = "a partition that is detached keeps its rows on one side only: wait until the move ends";

/// The way of a statement, and what the side that receives must give up first.
#[derive(Debug, PartialEq, Eq)]
pub struct Effect {
    pub way: Way,
    pub before: Vec<String>,
}

impl Seen {
    /// Judges what the statement between two moments has done.
    ///
    /// # Errors
    /// The reason why it cannot run during a move, and what to do instead.
    pub fn judge(&self, after: &Self, statement: &Statement) -> Result<Effect, String> {
        let mut change = Change::default();
        self.judge_tables(after)?;
        self.judge_columns(after, statement, &mut change)?;
        self.judge_constraints(after, &mut change)?;
        self.judge_lines(after, statement, &mut change)?;
        let writes = after.written > self.written;
        let way = match change {
            Change { adds: true, takes: true, .. } => {
                return Err("it adds something and takes something away: write a statement for each".to_owned());
            }
            Change { adds: false, takes: false, .. } if writes => Way::SenderOnly,
            _ if writes => return Err("it changes rows and definitions: write a statement for each".to_owned()),
            Change { takes: true, .. } => Way::SenderFirst,
            _ => Way::ReceiverFirst,
        };
        Ok(Effect { way, before: change.before })
    }

    fn judge_tables(&self, after: &Self) -> Result<(), String> {
        for (table, key) in &self.keys {
            match after.keys.get(table) {
                None => {
                    return Err(format!("the table {table} is gone: it has to stay, with its name, until the move ends"));
                }
                Some(now) if now != key => {
                    return Err(format!(
                        "the key of {table} changes, by which the stream finds rows: wait until the move ends"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn judge_columns(&self, after: &Self, statement: &Statement, change: &mut Change) -> Result<(), String> {
        let has_table = |seen: &Self, table: &Qualified| seen.columns.keys().any(|(known, _)| known == table);
        for ((table, name), is) in &after.columns {
            match self.columns.get(&(table.clone(), name.clone())) {
                Some(was) => was.judge(is, statement, change)?,
                // A new partition has the columns of its root.
                None if !has_table(self, table) => change.adds = true,
                None => {
                    let renamed = self.columns.iter().find(|(key, was)| {
                        key.0 == *table && !after.columns.contains_key(key) && was.type_oid == is.type_oid
                    });
                    if let Some(((_, old), _)) = renamed {
                        return Err(format!(
                            "the stream still names {table}.{old}: add {name}, fill it, and drop {old} in a later migration"
                        ));
                    }
                    is.judge_new(change)?;
                }
            }
        }
        for ((table, name), was) in &self.columns {
            if after.columns.contains_key(&(table.clone(), name.clone())) || !has_table(after, table) {
                continue;
            }
            change.takes = true;
            // The sender's rows come without it for a moment.
            if was.is_not_null && was.default.is_none() && !was.is_partition {
                let (table, name) = (table.sql(), quote_ident(name));
                change.before.push(format!("alter table {table} alter column {name} drop not null"));
            }
        }
        Ok(())
    }

    fn judge_constraints(&self, after: &Self, change: &mut Change) -> Result<(), String> {
        for (name, definition) in &after.constraints {
            match self.constraints.get(name) {
                None if change.adds && after.is_new(self, &name.0) => {}
                None => change.takes = true,
                Some(was) if was != definition => {
                    return Err(format!("the constraint {} changes: drop it and add it again, in two statements", name.1));
                }
                Some(_) => {}
            }
        }
        for ((table, name), definition) in &self.constraints {
            if after.constraints.contains_key(&(table.clone(), name.clone())) {
                continue;
            }
            if !change.takes {
                change.adds = true;
            } else if definition.starts_with("CHECK") {
                // It went with a column.
                let drop = format!("alter table {} drop constraint if exists {}", table.sql(), quote_ident(name));
                change.before.push(drop);
            }
        }
        Ok(())
    }

    fn judge_lines(&self, after: &Self, statement: &Statement, change: &mut Change) -> Result<(), String> {
        let is_inheritance = |line: &&String| line.starts_with("table ") && line.contains(" inherits from ");
        if let Some(line) = after.lines.symmetric_difference(&self.lines).find(is_inheritance) {
            return Err(format!("a read of the parent would have other rows ({line}): wait until the move ends"));
        }
        for line in after.lines.difference(&self.lines) {
            if let Some(fault) = line.strip_prefix("fault: ") {
                return Err(format!("the stream needs it otherwise ({fault})"));
            }
            if line.contains(" has the attribute ") {
                return Err(format!("a type inside the rows changes ({line}): wait until the move ends"));
            }
            match line.starts_with("domain ") || line.starts_with("unique index ") && !change.adds {
                true => change.takes = true,
                false => change.adds = true,
            }
        }
        for line in self.lines.difference(&after.lines) {
            if line.starts_with("partition ") && statement.has("detach") {
                return Err(DETACHED.to_owned());
            }
            let goes_along = change.takes || line.contains(" has the values ") || line.starts_with("fault: ");
            if line.starts_with("partition ") {
                change.takes = true;
            } else if line.contains(" has the value ") || line.contains(" has the attribute ") {
                return Err(format!("a type inside the rows changes ({line}): wait until the move ends"));
            } else if !goes_along {
                change.adds = true;
            }
        }
        Ok(())
    }

    /// Whether the table was not there before.
    fn is_new(&self, before: &Self, table: &Qualified) -> bool {
        !before.columns.keys().any(|(known, _)| known == table)
    }
}

#[derive(Default)]
struct Change {
    adds: bool,
    takes: bool,
    before: Vec<String>,
}

impl Column {
    /// Judges a new column.
    fn judge_new(&self, change: &mut Change) -> Result<(), String> {
        let Self { table, column, .. } = self;
        if !self.is_generated && !self.is_fixed {
            return Err(format!(
                "the default of {table}.{column} gives the rows other values on either side: add the column without it, set \
                 the default in a second statement, and fill the rows by an update"
            ));
        }
        if !self.is_generated && self.is_not_null && self.default.is_none() {
            return Err(format!(
                "the stream has no {table}.{column} yet: add it without `not null`, fill it, and set that afterwards"
            ));
        }
        change.adds = true;
        Ok(())
    }

    /// Judges a column that stays. The catalog has said that each value of the old type fits the new one.
    fn judge(&self, is: &Self, statement: &Statement, change: &mut Change) -> Result<(), String> {
        let Self { table, column, .. } = self;
        if (self.type_oid, self.modifier) != (is.type_oid, is.modifier) {
            if statement.has("using") {
                return Err(format!("`using` may give {table}.{column} other values on either side: use a new column"));
            }
            change.adds = true;
        }
        if self.is_generated != is.is_generated {
            return Err(format!("{table}.{column} becomes a column of another kind: use a new column"));
        }
        match (self.is_not_null, is.is_not_null) {
            (false, true) => change.takes = true,
            (true, false) => change.adds = true,
            _ => {}
        }
        Ok(())
    }
}
