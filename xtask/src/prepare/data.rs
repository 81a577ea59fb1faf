//! The files `.sqlx/query-<hash>.json`, one for each statement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::shown;

/// All files of one service.
pub struct QueryData {
    folder: PathBuf,
    files: BTreeMap<String, String>,
    statements: BTreeMap<String, Statement>,
}

/// The used fields of one file.
#[derive(Debug, Deserialize)]
pub struct Statement {
    pub query: String,
    describe: Describe,
}

#[derive(Debug, Deserialize)]
struct Describe {
    parameters: Parameters,
}

#[derive(Debug, Deserialize)]
enum Parameters {
    Left(Vec<serde_json::Value>),
    Right(usize),
}

impl Statement {
    /// The number of parameters.
    pub fn parameters(&self) -> usize {
        match &self.describe.parameters {
            Parameters::Left(types) => types.len(),
            Parameters::Right(number) => *number,
        }
    }
}

impl QueryData {
    /// Reads a folder. A missing folder counts as empty.
    pub fn read(folder: &Path) -> Result<Self> {
        let (mut files, mut statements) = (BTreeMap::new(), BTreeMap::new());
        let entries = match fs::read_dir(folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| shown(folder)),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).with_context(|| shown(&path))?;
            if let Ok(statement) = serde_json::from_str(&text) {
                statements.insert(name.clone(), statement);
            }
            files.insert(name, text);
        }
        Ok(Self { folder: folder.to_owned(), files, statements })
    }

    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.statements.values()
    }

    /// The statements whose files differ from `others`, or are missing in one of the two.
    pub fn unlike(&self, others: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.files.keys().chain(others.files.keys()).collect();
        let unlike = names.into_iter().filter(|name| self.files.get(*name) != others.files.get(*name));
        let statement = |name: &String| self.statements.get(name).or(others.statements.get(name));
        unlike.map(|name| statement(name).map_or_else(|| name.clone(), |found| summary(&found.query))).collect()
    }

    /// A message for each file that differs from `fresh`.
    pub fn differences(&self, fresh: &Self) -> Vec<String> {
        let place = |name: &str| shown(&self.folder.join(name));
        let mut differences = Vec::new();
        for (name, text) in &fresh.files {
            let fault = match self.files.get(name) {
                None => "is missing",
                Some(committed) if committed != text => "is stale",
                Some(_) => continue,
            };
            let statement = fresh.statements.get(name).map(|statement| summary(&statement.query)).unwrap_or_default();
            differences.push(format!("{} {fault} ({statement}): run `cargo xtask prepare`", place(name)));
        }
        for name in self.files.keys().filter(|name| !fresh.files.contains_key(*name)) {
            differences.push(format!("{} is left over (no statement needs it): run `cargo xtask prepare`", place(name)));
        }
        differences
    }

    /// Writes the files of `fresh` into `folder`, and deletes all others.
    pub fn replace(&self, fresh: &Self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| shown(folder))?;
        for (name, text) in &fresh.files {
            if self.files.get(name) != Some(text) {
                fs::write(folder.join(name), text).with_context(|| shown(&folder.join(name)))?;
                println!("wrote {}", shown(&folder.join(name)));
            }
        }
        for name in self.files.keys().filter(|name| !fresh.files.contains_key(*name)) {
            fs::remove_file(folder.join(name)).with_context(|| shown(&folder.join(name)))?;
            println!("removed {}", shown(&folder.join(name)));
        }
        Ok(())
    }
}

/// The first part of a statement, on one line.
pub fn summary(statement: &str) -> String {
    const LENGTH: usize = 100;
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(query: &str) -> String {
        serde_json::json!({ "query": query, "describe": { "parameters": { "Left": ["Uuid"] } } }).to_string()
    }

    fn data(files: &[(&str, String)]) -> (tempfile::TempDir, QueryData) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let data = QueryData::read(folder.path()).expect("read");
        (folder, data)
    }

    #[test]
    fn a_stale_a_missing_and_a_leftover_file_are_each_named_and_replaced() {
        let (_folder, fresh) = data(&[
            ("query-a.json", file("select 1")),
            ("query-b.json", file("select 2")),
            ("query-c.json", file("select 3")),
        ]);
        let (folder, committed) = data(&[
            ("query-a.json", file("select 1")),
            ("query-b.json", file("select 2, 'as it was'")),
            ("query-d.json", file("select 4")),
            ("notes.txt", "no query at all".to_owned()),
        ]);
        let differences = committed.differences(&fresh);
        for (name, fault) in [
            ("query-b.json", "stale"),
            ("query-c.json", "missing"),
            ("query-d.json", "left over"),
            ("notes.txt", "left over"),
        ] {
            let named = differences.iter().filter(|difference| difference.contains(name) && difference.contains(fault));
            assert_eq!(named.count(), 1, "{name} is {fault}: {differences:?}");
        }
        assert_eq!(differences.len(), 4);
        assert_eq!(committed.unlike(&fresh), ["notes.txt", "select 2, 'as it was'", "select 3", "select 4"]);
        assert_eq!(fresh.unlike(&fresh), Vec::<String>::new());

        committed.replace(&fresh, folder.path()).expect("replaced");
        let replaced = QueryData::read(folder.path()).expect("read");
        assert_eq!(replaced.differences(&fresh), Vec::<String>::new());
        assert_eq!(replaced.statements().count(), 3);
    }
}
