//! The limits of documents, lines, functions and folders that CONTRIBUTING.md names.

mod sources;

use std::collections::BTreeSet;
use std::path::Path;

use sources::{files, read, root};

const WIDTH: usize = 125;
/// Folders at the top, without hidden folders and the build's.
const FOLDERS: [&str; 10] =
    ["bench", "deploy", "dev", "docs", "examples", "migrations", "services", "shared-db", "splitctl", "xtask"];
/// Folders that programs write, and git ignores: the build's, and the reports of `splitctl rehearse`.
const WRITTEN: [&str; 2] = ["target", "rehearsals"];
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
    let found: BTreeSet<String> =
        folders.filter(|name| !name.starts_with('.') && !WRITTEN.contains(&name.as_str())).collect();
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
fn each_service_knows_its_brokers_features_in_one_file() {
    for (service, feature) in ["orders", "users"].into_iter().flat_map(|service| [(service, "kafka"), (service, "rabbitmq")])
    {
        let condition = format!("feature = \"{feature}\"");
        let files = with(&format!("services/{service}/src"), "rs", |text| text.contains(&condition));
        assert!(files.iter().all(|file| file.ends_with("/src/main.rs")), "{files:?} should be main.rs alone");
    }
}

/// Every statement that a service runs: those that the macros have checked, and those of files.
fn statements() -> Vec<(String, String)> {
    let query = |text: &str| {
        let data: serde_json::Value = serde_json::from_str(text).expect("query data");
        data["query"].as_str().expect("a statement").to_owned()
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for service in ["users", "orders"] {
        let data = files(&format!("services/{service}/.sqlx"), "json");
        assert!(data.len() > 20, "{service} has {} statements", data.len());
        found.extend(data.iter().map(|file| (file.display().to_string(), query(&read(file)))));
    }
    let of_files = files("services", "sql").into_iter().chain(files("migrations/replicas", "sql"));
    // These are as applied migrations are, and a test compares them.
    let applied = |file: &Path| {
        let is_migration = file.parent().is_some_and(|folder| folder.ends_with("migrations"));
        is_migration || read(file).contains("create or replace function")
    };
    found.extend(of_files.filter(|file| !applied(file)).map(|file| (file.display().to_string(), read(&file))));
    found.extend(files("shared-db/src", "rs").into_iter().map(|file| (file.display().to_string(), read(&file))));
    found
}

/// The part of a statement behind `on conflict`, up to `returning` or its end.
fn conflicts(statement: &str) -> Vec<&str> {
    let parts = statement.split("on conflict").skip(1);
    parts.map(|part| part.split("returning").next().unwrap_or(part)).collect()
}

fn parameters(text: &str) -> BTreeSet<&str> {
    let numbers = text.split('$').skip(1);
    numbers
        .map(|rest| rest.split(|next: char| !next.is_ascii_digit()).next().unwrap_or(""))
        .filter(|n| !n.is_empty())
        .collect()
}

/// What is wrong with a statement on an engine of several nodes. docs/scale.md has the reasons.
fn unfit(statement: &str) -> Vec<&'static str> {
    let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut faults = Vec::new();
    if words.contains("exists (select from") || words.contains("exists ( select from") {
        faults.push("`exists (select from …)`: write `select 1`");
    }
    for conflict in conflicts(&words) {
        if ["now()", "clock_timestamp()", "current_timestamp"].iter().any(|clock| conflict.contains(clock)) {
            faults.push("a clock in `on conflict do update`: write `excluded.…`");
        }
        let elsewhere = words.replacen(conflict, "", 1);
        if !parameters(conflict).is_subset(&parameters(&elsewhere)) {
            faults.push("a parameter that stands only in `on conflict`");
        }
    }
    faults
}

#[test]
fn the_services_sql_is_fit_for_an_engine_of_several_nodes() {
    let faults = statements().into_iter().flat_map(|(file, statement)| {
        unfit(&statement).into_iter().map(move |fault| format!("{file}: {fault}")).collect::<Vec<_>>()
    });
    assert_none("statements that an engine of several nodes refuses", faults);
    // The check finds each fault.
    for (statement, fault) in [
        ("select exists (select from t)", "select 1"),
        ("select not exists (\n  select\n  from t)", "select 1"),
        ("insert into t values ($1) on conflict (a) do update set b = clock_timestamp()", "a clock"),
        ("insert into t values ($1) on conflict (a) do update set b = 1 where t.c < $2", "only in"),
    ] {
        let found = unfit(statement);
        assert!(found.len() == 1 && found[0].contains(fault), "{statement}: {found:?}");
    }
    let fit = "insert into t values ($1, $2) on conflict (a) do update set b = excluded.b where t.c < $2 returning now()";
    assert!(unfit(fit).is_empty());
}
