//! The statements that the application is known to run, and where each is known from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use sqlx::query_scalar;

use super::logs;
use crate::audit::lexer::{self, Token, tokens};
use crate::audit::statements::{self, USE_NOTHING};
use crate::manifest::KnownStatement;
use crate::moving::Move;

/// How much of a statement's text a report shows.
const SHOWN: usize = 160;

/// Where a statement is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The application's sources: it is the owner's.
    Sources,
    /// What the role has run. Another part of the application may have run it, if it uses the same role.
    Run,
    /// It is built for a table, to try the role's rights.
    Built,
}

/// A statement.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub text: String,
    /// "statement 1a2b3c4d", or what it does with a table.
    pub subject: String,
    /// Where it is known from, for people.
    pub place: String,
    pub origin: Origin,
}

impl Statement {
    /// For messages: its subject, where it is known from, and its text.
    pub fn described(&self) -> String {
        match self.origin {
            Origin::Built => format!("{} ({})", self.subject, self.place),
            _ => format!("{} ({}), `{}`", self.subject, self.place, self.shown()),
        }
    }

    /// Its text on one line, without literals, and cut.
    pub fn shown(&self) -> String {
        let text = lexer::without_literals(&self.text);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = words.chars().take(SHOWN).collect();
        if shown.len() < words.len() { shown + "…" } else { shown }
    }
}

/// The statements, each once. Those that differ in their values only are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    found: BTreeMap<String, Statement>,
    /// What could not be read, and what would show more.
    pub notes: Vec<String>,
}

impl Known {
    /// Reads all sources: the manifest's files, and the statistics of the source.
    pub async fn read(the_move: &mut Move) -> Result<Self> {
        let mut known = Self::default();
        let Move { owner, manifest, source, .. } = the_move;
        if !owner.known.is_empty() {
            for KnownStatement { text, place, is_run } in &owner.known {
                known.add(text, place.clone(), if *is_run { Origin::Run } else { Origin::Sources });
            }
            return Ok(known);
        }
        if let Some(folder) = &owner.statements {
            for statement in statements::offline_data(folder)? {
                let label = statement.label.split(' ').next().unwrap_or_default().to_owned();
                known.add(&statement.text, label, Origin::Sources);
            }
        }
        let database: String = query_scalar("select current_database()::text").fetch_one(&mut source.connection).await?;
        for path in &owner.queries {
            known.read_path(path, &logs::Of { role: &owner.role, database: &database })?;
        }
        let mut run = statements::run_by_roles(&mut source.connection, manifest, &mut known.notes).await?;
        for statement in run.remove(&owner.role).unwrap_or_default() {
            known.add(&statement.text, statement.label, Origin::Run);
        }
        Ok(known)
    }

    /// All of them, for another database with the same definitions.
    pub fn elsewhere(self) -> Vec<KnownStatement> {
        let is_run = |statement: &Statement| statement.origin == Origin::Run;
        let all = self.found.into_values();
        all.map(|found| KnownStatement { is_run: is_run(&found), text: found.text, place: found.place }).collect()
    }

    /// All of them.
    pub fn statements(&self) -> Vec<Statement> {
        self.found.values().cloned().collect()
    }

    fn read_path(&mut self, path: &Path, of: &logs::Of<'_>) -> Result<()> {
        let shown = || format!("{}: the manifest names it as queries, and it cannot be read", path.display());
        if path.is_dir() {
            let mut inside = Vec::new();
            for entry in fs::read_dir(path).with_context(shown)? {
                inside.push(entry.with_context(shown)?.path());
            }
            inside.sort();
            let is_known = |path: &PathBuf| path.is_dir() || matches!(ending(path), "sql" | "log" | "csv" | "json");
            return inside.iter().filter(|path| is_known(path)).try_for_each(|path| self.read_path(path, of));
        }
        if ending(path) == "sql" {
            let script = String::from_utf8_lossy(&fs::read(path).with_context(shown)?).into_owned();
            // psql reads a line that begins with a backslash itself.
            let script: String = script
                .lines()
                .filter(|line| !line.trim_start().starts_with('\\'))
                .fold(String::new(), |script, line| script + line + "\n");
            for statement in lexer::statements(&script) {
                self.add(statement, path.display().to_string(), Origin::Sources);
            }
            return Ok(());
        }
        logs::read(path, of, &mut |text| self.add(text, path.display().to_string(), Origin::Run)).with_context(shown)
    }

    fn add(&mut self, text: &str, place: String, origin: Origin) {
        let normal = lexer::without_values(text);
        let uses_nothing = |word: &str| USE_NOTHING.contains(&word) || word == "explain";
        let is_of_session = matches!(tokens(text).next(), Some(Token::Word(word)) if uses_nothing(&word));
        if normal.is_empty() || is_of_session {
            return;
        }
        let digest = Sha256::digest(normal.as_bytes());
        let number: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let text = text.trim().to_owned();
        self.found.entry(normal).or_insert(Statement { text, subject: format!("statement {number}"), place, origin });
    }
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_known_once_whatever_its_values() {
        let mut known = Known::default();
        for text in [
            "select a from t where b = 'x' and c = 12",
            "SELECT a  FROM t -- again\n WHERE b = 'yy' AND c = 7;",
            "select a from t where b = $1 and c = $2",
            "begin",
            " -- nothing",
        ] {
            known.add(text, "here".to_owned(), Origin::Run);
        }
        let statements = known.statements();
        assert_eq!(statements.len(), 2, "{statements:?}");
        assert!(statements.iter().all(|statement| statement.subject.len() == "statement 12345678".len()));
        assert!(statements.iter().any(|statement| statement.shown() == "select a from t where b = '…' and c = 12"));
    }
}
