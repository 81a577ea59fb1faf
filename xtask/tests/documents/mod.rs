//! The Markdown documents: their blocks of shell commands, their tables, and the files that they show.
#![allow(dead_code, reason = "each test program uses a part of it")]

#[path = "../../src/workspace.rs"]
mod workspace;

use std::fs;
use std::path::{Path, PathBuf};

pub use workspace::{build, root};

/// The comment that says where the blocks below it run, until the next such comment of the document.
const RUN_WITH: &str = "<!-- run with: ";
/// The comment that says why the next block does not run.
const NOT_RUN: &str = "<!-- not run: ";

/// A document, by its path from the project's folder.
pub struct Document {
    pub path: String,
    pub text: String,
}

/// A block of shell commands.
pub struct Block {
    /// Its document and line, for messages.
    pub at: String,
    pub mark: Mark,
    pub steps: Vec<Step>,
}

/// What the comment above a block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    RunWith(String),
    NotRun(String),
    Missing,
}

/// Commands, and the pieces of output that the comments `#= …` below them promise, in order.
#[derive(Default)]
pub struct Step {
    pub commands: String,
    pub promises: Vec<String>,
}

/// README.md and the documents in `docs/`, in the order of their names. README.md comes last: it completes the move.
pub fn documents() -> Vec<Document> {
    let entries = fs::read_dir(root().join("docs")).expect("the folder docs");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.push(root().join("README.md"));
    paths.iter().map(|path| Document::read(path)).collect()
}

impl Document {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.strip_prefix(root()).unwrap_or(path).display().to_string(), text }
    }

    /// Its blocks of shell commands.
    pub fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut here, mut next) = (Vec::new(), Mark::Missing, None);
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let trimmed = line.trim_start();
            if let Some(setting) = comment(trimmed, RUN_WITH) {
                here = Mark::RunWith(setting);
            } else if let Some(reason) = comment(trimmed, NOT_RUN) {
                next = Some(Mark::NotRun(reason));
            } else if trimmed == "```sh" {
                // Blocks within a list are indented.
                let indent = line.len() - trimmed.len();
                let block = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start() != "```");
                let steps = steps(block.map(|line| line.get(indent..).unwrap_or_default()));
                let mark = next.take().unwrap_or_else(|| here.clone());
                blocks.push(Block { at: format!("{}:{}", self.path, number + 1), mark, steps });
            }
        }
        blocks
    }

    /// The cells of all tables whose first heading is `heading`, row by row, without the backticks.
    pub fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let (mut rows, mut inside) = (Vec::new(), false);
        for line in self.text.lines() {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
            inside = line.starts_with('|') && (inside || cells[0] == heading);
            if inside && cells[0] != heading && !cells[0].starts_with("--") {
                rows.push(cells);
            }
        }
        rows
    }
}

fn comment(line: &str, begin: &str) -> Option<String> {
    Some(line.strip_prefix(begin)?.strip_suffix(" -->")?.to_owned())
}

fn steps<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    for line in lines {
        let last = steps.last_mut().expect("there is one");
        if let Some(promise) = line.trim_start().strip_prefix("#= ") {
            last.promises.push(promise.to_owned());
        } else if last.promises.is_empty() {
            last.commands += &format!("{line}\n");
        } else {
            steps.push(Step { commands: format!("{line}\n"), promises: Vec::new() });
        }
    }
    steps
}

/// The Rust files below a folder. `target` holds what is built, and a folder such as `.data` may not be ours to read.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !path.is_dir() {
            files.extend(name.ends_with(".rs").then_some(path));
        } else if name != "target" && !name.starts_with('.') {
            files.extend(rust_files(&path));
        }
    }
    files
}
