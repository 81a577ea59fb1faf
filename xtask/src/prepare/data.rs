//! The files `.sqlx/query-<hash>.json`, one for each statement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::shown;

/// All files of one service, by name.
pub struct QueryData {
    folder: PathBuf,
    files: BTreeMap<String, String>,
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
        let mut files = BTreeMap::new();
        let entries = match fs::read_dir(folder) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| shown(folder)),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read_to_string(&path).with_context(|| shown(&path))?);
        }
        Ok(Self { folder: folder.to_owned(), files })
    }

    pub fn statements(&self) -> impl Iterator<Item = Statement> {
        self.files.values().filter_map(|text| serde_json::from_str(text).ok())
    }

    /// The files that differ, or are missing in one of the two: the name, the text here, and the text there.
    fn changes<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
        let names: BTreeSet<&String> = self.files.keys().chain(others.files.keys()).collect();
        let text = |data: &'a Self, name| data.files.get(name).map(String::as_str);
        let texts = names.into_iter().map(move |name| (name.as_str(), text(self, name), text(others, name)));
        texts.filter(|(_, here, there)| here != there)
    }

    /// The statements whose files differ from `others`, or are missing in one of the two.
    pub fn unlike(&self, others: &Self) -> Vec<String> {
        self.changes(others).map(|(name, here, there)| statement_of(name, here.or(there))).collect()
    }

    /// A message for each file that differs from `fresh`.
    pub fn differences(&self, fresh: &Self) -> Vec<String> {
        let differences = self.changes(fresh).map(|(name, committed, fresh)| {
            let fault = match (committed, fresh) {
                (None, _) => "is missing",
                (_, None) => "is left over",
                _ => "is stale",
            };
            let (place, statement) = (shown(&self.folder.join(name)), statement_of(name, fresh.or(committed)));
            format!("{place} {fault} ({statement}): run `cargo xtask prepare`")
        });
        differences.collect()
    }

    /// Writes the files of `fresh` into `folder`, and deletes all others.
    pub fn replace(&self, fresh: &Self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| shown(folder))?;
        for (name, _, fresh) in self.changes(fresh) {
            let path = folder.join(name);
            let (done, what) = match fresh {
                Some(text) => (fs::write(&path, text), "wrote"),
                None => (fs::remove_file(&path), "removed"),
            };
            done.with_context(|| shown(&path))?;
            println!("{what} {}", shown(&path));
        }
        Ok(())
    }
}

/// The summary of the statement in a file; the file's name if there is none.
fn statement_of(name: &str, text: Option<&str>) -> String {
    let statement = text.and_then(|text| serde_json::from_str::<Statement>(text).ok());
    statement.map_or_else(|| name.to_owned(), |statement| summary(&statement.query))
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
