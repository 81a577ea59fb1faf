//! The limits of documents, lines, functions and folders that CONTRIBUTING.md names.

mod sources;

use std::collections::BTreeSet;
use std::path::Path;

use sources::{files, read, root};

const WIDTH: usize = 125;
/// Folders at the top, without hidden folders and the build's.
const FOLDERS: [&str; 9] = ["bench", "deploy", "dev", "docs", "migrations", "services", "shared-db", "splitctl", "xtask"];
/// Longest function in `src/`, in lines from its `fn` to its closing brace.
const FUNCTION: usize = 50;

fn assert_none(what: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn is_too_wide(line: &str) -> bool {
    line.chars().count() > WIDTH
}

#[test]
fn documents_are_as_short_as_they_should_be() {
    let words = |file: &str| read(file).split_whitespace().count();
    for (file, most) in [("README.md", 1600), ("ARCHITECTURE.md", 2500)] {
        assert!(words(file) <= most, "{file} has {} words, at most {most} are allowed", words(file));
    }
    let lines = read("CONTRIBUTING.md").lines().count();
    assert!(lines <= 80, "CONTRIBUTING.md has {lines} lines, at most 80 are allowed");
}

/// Tables are wide, and so is the output in a block; a command in a block is not.
#[test]
fn no_line_of_a_document_is_wide() {
    let mut wide = Vec::new();
    for file in files("", "md") {
        let mut block = None;
        for (number, line) in read(&file).lines().enumerate() {
            let start = line.trim_start();
            if let Some(language) = start.strip_prefix("```") {
                block = if block.is_some() { None } else { Some(language.to_owned()) };
            }
            let may_be_wide = start.starts_with('|') || block.as_ref().is_some_and(|language| language != "sh");
            if is_too_wide(line) && !may_be_wide {
                wide.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert_none("lines wider than 125 columns", wide);
}

#[test]
fn no_line_of_code_is_wide() {
    let mut wide = Vec::new();
    for file in files("", "rs") {
        for (number, line) in read(&file).lines().enumerate().filter(|(_, line)| is_too_wide(line)) {
            wide.push(format!("{}:{} {}", file.display(), number + 1, line.trim()));
        }
    }
    assert_none("lines wider than 125 columns", wide);
}

/// rustfmt puts the closing brace of a function below the first letter of its line.
fn long_functions(file: &Path) -> Vec<String> {
    let text = read(file);
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let is_function = ["", "pub ", "pub(crate) ", "pub(super) "]
            .iter()
            .filter_map(|visibility| start.strip_prefix(visibility))
            .any(|rest| ["fn ", "async fn ", "const fn "].iter().any(|word| rest.starts_with(word)));
        let end = format!("{}}}", &line[..line.len() - start.len()]);
        let length = lines[number..].iter().position(|line| *line == end).map_or(0, |lines| lines + 1);
        if is_function && !line.ends_with('}') && length > FUNCTION {
            long.push(format!("{}:{} has {length} lines", file.display(), number + 1));
        }
    }
    long
}

#[test]
fn no_function_is_long() {
    let sources = files("", "rs").into_iter().filter(|file| file.iter().any(|folder| folder == "src"));
    assert_none("functions of more than 50 lines", sources.flat_map(|file| long_functions(&file)));
}

#[test]
fn the_top_has_no_folder_but_those_of_the_house() {
    let entries = std::fs::read_dir(root()).expect("the project's folder").flatten();
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().expect("text"));
    let found: BTreeSet<String> = folders.filter(|name| !name.starts_with('.') && name != "target").collect();
    assert_none("folders at the top", found.into_iter().filter(|name| !FOLDERS.contains(&name.as_str())));
}

/// The files below a folder that contain a text.
fn with(folder: &str, ending: &str, contains: impl Fn(&str) -> bool) -> Vec<String> {
    let found = files(folder, ending).into_iter().filter(|file| contains(&read(file)));
    found.map(|file| file.display().to_string()).collect()
}

#[test]
fn splitctl_reads_columns_by_name() {
    let by_number =
        |text: &str| text.split("try_get(").skip(1).any(|rest| rest.starts_with(|first: char| first.is_numeric()));
    assert_none("files with try_get(<number>)", with("splitctl/src", "rs", by_number));
}

#[test]
fn no_handler_knows_the_dial() {
    assert_none("files with in_view", with("services/orders/src/routes", "rs", |text| text.contains("in_view")));
    assert!(!read("services/orders/src/step.rs").contains("in_view"), "services/orders/src/step.rs has in_view");
    let place = read("services/orders/src/routes/place.rs");
    let (before, annotated) = place.split_once("#[utoipa::path(").expect("an annotation");
    let after = annotated.split_once("\n)]").expect("its end").1;
    let lines = before.lines().count() + after.lines().count();
    assert!(
        lines <= 70,
        "services/orders/src/routes/place.rs has {lines} lines without its annotation, at most 70 are allowed"
    );
}

#[test]
fn each_service_knows_its_kafka_feature_in_one_file() {
    for service in ["orders", "users"] {
        let files = with(&format!("services/{service}/src"), "rs", |text| text.contains("feature = \"kafka\""));
        assert!(files.iter().all(|file| file.ends_with("/src/main.rs")), "{files:?} should be main.rs alone");
    }
}
