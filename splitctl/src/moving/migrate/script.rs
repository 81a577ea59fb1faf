//! The statements of a migration, and where each may run by its first words alone.

use super::planned::Way;
use crate::audit::lexer::{self, Token};

/// A statement of a migration.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// The words and characters of it.
    tokens: Vec<Token>,
}

/// What the first words say.
#[derive(Debug, PartialEq, Eq)]
pub enum Says {
    /// It runs in this way, whatever it does.
    Goes(Way),
    /// It has to be tried.
    Unknown,
    /// No migration may have it during a move, for this reason.
    Refused(&'static str),
}

impl Statement {
    /// The statements of a script. `begin` and `commit` are left out: each statement is a transaction of its own.
    pub fn all(script: &str) -> Vec<Self> {
        let statements = lexer::statements(script)
            .into_iter()
            .map(|sql| Self { sql: sql.trim().to_owned(), tokens: lexer::tokens(sql).collect() });
        statements.filter(|one| !one.tokens.is_empty() && !one.begins(&["begin", "start", "commit", "end"])).collect()
    }

    /// The statement in one line, without what stands in quotes.
    pub fn shown(&self) -> String {
        const SHOWN: usize = 100;
        let line = lexer::without_literals(&self.sql).split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).chain(['…']).collect() }
    }

    /// Whether one of its words is this.
    pub fn has(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Word(known) if known == word))
    }

    /// Whether it creates a unique index.
    pub fn creates_unique_index(&self) -> bool {
        self.begins(&["create"]) && self.word(1) == Some("unique")
    }

    /// Whether it changes a table in one way only.
    pub fn has_one_action(&self) -> bool {
        let action =
            |token: &&Token| matches!(token, Token::Word(word) if ["add", "drop", "alter"].contains(&word.as_str()));
        self.tokens.iter().skip(1).filter(action).count() <= 1
    }

    /// What its first words say.
    pub fn says(&self) -> Says {
        match self.word(0).unwrap_or_default() {
            "set" if self.word(1) == Some("local") => {
                Says::Refused("each statement is a transaction of its own: write `set`, which lasts to the end of the file")
            }
            "set" | "reset" => Says::Goes(Way::Session),
            "rollback" | "savepoint" | "release" | "abort" | "prepare" => {
                Says::Refused("each statement is a transaction of its own")
            }
            "truncate" => Says::Refused("no stream carries it: use `delete`"),
            "copy" => Says::Refused("it reads from a client: use `insert`"),
            "insert" | "update" | "delete" | "merge" | "with" | "select" | "values" | "call" | "lock" | "vacuum"
            | "analyze" | "refresh" => Says::Goes(Way::SenderOnly),
            "grant" | "revoke" if !self.is_about_code() => Says::Goes(Way::SenderOnly),
            _ => Says::Unknown,
        }
    }

    /// Whether rights are given on what both sides keep in step: functions, types, schemas.
    fn is_about_code(&self) -> bool {
        let code = ["function", "procedure", "routine", "functions", "procedures", "routines", "type", "domain", "schema"];
        let words = self.tokens.iter().filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            _ => None,
        });
        words.skip_while(|word| *word != "on").nth(1).is_some_and(|word| code.contains(&word))
    }

    fn begins(&self, words: &[&str]) -> bool {
        self.word(0).is_some_and(|first| words.contains(&first))
    }

    fn word(&self, nth: usize) -> Option<&str> {
        match self.tokens.get(nth) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }
}
