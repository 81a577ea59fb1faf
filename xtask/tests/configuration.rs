//! The tables of docs/configuration.md and docs/operations.md name what the programs have, and nothing else: variables and
//! flags with the defaults that `--help` shows, and metrics.

mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use documents::{Document, build, root, rust_files};

/// Options by program or command and by name, with their defaults; an empty default says that there is none.
type Options = BTreeMap<(String, String), String>;

fn page() -> Document {
    Document::read(&root().join("docs/configuration.md"))
}

/// The help of a program, run where no variable and no `.env` says anything.
fn help(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).arg("--help").env_clear().current_dir(std::env::temp_dir());
    String::from_utf8(command.output().expect("the program runs").stdout).expect("text")
}

/// The pieces of a help text: one for each option.
fn pieces(help: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for line in help.split_once("\nOptions:\n").map_or("", |(_, options)| options).lines() {
        match line.trim_start() {
            option if option.starts_with("-h, ") || option.starts_with("-V, ") => pieces.push(String::new()),
            option if option.starts_with("--") => pieces.push(option.to_owned()),
            more => pieces.iter_mut().last().into_iter().for_each(|piece| *piece += &format!(" {more}")),
        }
    }
    pieces.retain(|piece| piece.starts_with("--"));
    pieces
}

/// What stands between `begin` and the bracket behind it, last in the piece.
fn bracket(piece: &str, begin: &str) -> Option<String> {
    let (_, behind) = piece.rsplit_once(begin)?;
    Some(behind.split(']').next().unwrap_or_default().trim().replace('`', ""))
}

/// A default as it is compared: without what a sentence adds to it, and times in milliseconds.
fn plain(default: &str) -> String {
    let default = default.split(';').next().unwrap_or_default().trim();
    let digits = default.find(|character: char| !character.is_ascii_digit()).unwrap_or(default.len());
    let milliseconds = match &default[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return default.to_owned(),
    };
    default[..digits].parse::<u64>().map_or(default.to_owned(), |number| format!("{} ms", number * milliseconds))
}

/// The commands that a program lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, commands)| commands);
    let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The flags of every command of a program, without those that all of them have.
fn flags(program: &Path, shown: &str) -> Options {
    let mut flags = Options::new();
    for command in commands(&help(program, &[])) {
        for piece in pieces(&help(program, &[&command])) {
            let name = piece.split([' ', '=']).next().unwrap_or_default();
            if name != "--manifest" && !piece.contains("[env: ") {
                let default = bracket(&piece, "[default: ").unwrap_or_default();
                flags.insert((format!("{shown} {command}"), name.to_owned()), plain(&default));
            }
        }
    }
    flags
}

/// The rows of a table of the page: each of the comma-separated programs or commands of the first column has the option.
fn described(heading: &str) -> Options {
    let mut described = Options::new();
    for row in page().rows(heading) {
        let [whose, name, default, _meaning] = &row[..] else { panic!("four columns: {row:?}") };
        let default = plain(default.trim_matches('–'));
        for whose in whose.split(", ") {
            let again = described.insert((whose.to_owned(), name.clone()), default.clone());
            assert_eq!(again, None, "{whose} {name} is described twice");
        }
    }
    described
}

/// Fails with what only one of the two says, line by line.
fn check_same(described: &Options, known: &Options) {
    let only = |left: &Options, right: &Options, whose: &str| {
        let of_left = left.iter().filter(|(key, default)| right.get(*key) != Some(*default));
        let lines =
            of_left.map(|((command, name), default)| format!("  {command} {name} [default: {default}], only {whose}\n"));
        lines.collect::<String>()
    };
    let differences = only(described, known, "in docs/configuration.md") + &only(known, described, "in --help");
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn the_services_variables_are_those_of_their_help() {
    let programs = build(&["users", "orders"], false, &[]).expect("the services build");
    let mut variables = Options::new();
    for program in ["users", "orders"] {
        for piece in pieces(&help(&programs.join(program), &[])) {
            let variable = bracket(&piece, "[env: ").expect("every option has a variable");
            let variable = variable.trim_end_matches('=').to_owned();
            variables.insert((program.to_owned(), variable), plain(&bracket(&piece, "[default: ").unwrap_or_default()));
        }
    }
    assert!(variables.len() > 20, "{variables:?}");
    check_same(&described("services"), &variables);
}

#[test]
fn the_flags_of_splitctl_and_xtask_are_those_of_their_help() {
    let programs = build(&["splitctl"], false, &[]).expect("splitctl builds");
    let mut known = flags(&programs.join("splitctl"), "splitctl");
    known.extend(flags(Path::new(env!("CARGO_BIN_EXE_xtask")), "xtask"));
    assert!(known.len() > 40, "{known:?}");
    check_same(&described("commands"), &known);
}

/// Variables that no `--help` lists: the sources read them, and the page names all that they read.
#[test]
fn the_variables_of_tools_and_tests_are_those_that_the_sources_read() {
    let mut sources = sources(&["dev", "xtask", "splitctl", "bench", "services", "shared-db"]);
    sources += &fs::read_to_string(root().join("split.toml")).expect("split.toml");
    let tools: BTreeSet<String> = page().rows("tools").into_iter().map(|row| row[0].clone()).collect();
    let services = described("services").into_keys().map(|(_, variable)| variable);
    let described: BTreeSet<String> = tools.iter().cloned().chain(services).collect();

    let is_read = |variable: &String| ["\"", "\"$"].iter().any(|begin| sources.contains(&format!("{begin}{variable}\"")));
    let mut wrong: Vec<String> =
        tools.iter().filter(|variable| !is_read(variable)).map(|variable| format!("no source reads {variable}")).collect();
    let not_ours = ["PATH", "OUT_DIR", "HELD_SCRIPT", "SPLITCTL_DIE_AT"];
    let reads = ["env::var(\"", "env::var_os(\""].into_iter().flat_map(|read| sources.split(read).skip(1));
    let read = reads.filter_map(|behind| behind.split('"').next());
    let read = read.filter(|variable| !not_ours.contains(variable) && !variable.starts_with("CARGO"));
    let example = fs::read_to_string(root().join(".env.example")).expect(".env.example");
    let set = example.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    let set = set.map(|(variable, _)| variable).filter(|variable| !variable.contains(' '));
    let unknown: BTreeSet<&str> = read.chain(set).filter(|variable| !described.contains(*variable)).collect();
    wrong.extend(unknown.iter().map(|variable| format!("docs/configuration.md does not name {variable}")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_metrics_of_operations_are_those_that_the_services_have() {
    let sources = sources(&["services", "shared-db"]);
    let page = Document::read(&root().join("docs/operations.md"));
    let described: BTreeSet<String> =
        page.rows("metric").iter().flat_map(|row| row[0].split(", ").map(str::to_owned).collect::<Vec<_>>()).collect();
    for metric in &described {
        assert!(sources.contains(&format!("\"{metric}\"")), "the services have no {metric}");
    }
    for (kind, all) in [("gauge!(", 8), ("counter!(", 3)] {
        let calls = sources.split(kind).skip(1).filter_map(|call| call.trim_start().strip_prefix('"'));
        let metrics: BTreeSet<&str> = calls.filter_map(|call| call.split('"').next()).collect();
        assert!(metrics.len() >= all, "{metrics:?}");
        for metric in metrics {
            assert!(described.contains(metric), "docs/operations.md does not describe {metric}");
        }
    }
}

/// `promtool check metrics` asks for a description of each metric, and a test scrapes most of them. This one has them all.
#[test]
fn every_metric_is_described() {
    let sources = sources(&["services", "shared-db"]);
    let page = Document::read(&root().join("docs/operations.md"));
    let rows = page.rows("metric");
    let metrics = rows.iter().flat_map(|row| row[0].split(", "));
    // These have their description beside their value, or are described by the constructor that all of their kind have.
    let otherwise =
        |metric: &&str| !metric.starts_with("process_") && !metric.ends_with("_info") && !metric.contains("_shadow_");
    let flat: String = sources.split_whitespace().collect();
    let mut lacking = Vec::new();
    for metric in metrics.filter(otherwise) {
        let named = flat.split(&format!("=\"{metric}\";")).next().and_then(|before| before.rsplit("const").next());
        let constant = named.and_then(|name| name.split(':').next()).unwrap_or_default();
        let kinds = ["gauge", "counter", "histogram"];
        let is_described = kinds.iter().any(|kind| {
            flat.contains(&format!("describe_{kind}!(\"{metric}\","))
                || (!constant.is_empty() && flat.contains(&format!("describe_{kind}!({constant},")))
        });
        if !is_described {
            lacking.push(metric);
        }
    }
    assert!(lacking.is_empty(), "{lacking:?} have no description");
}

/// The texts of the Rust files in these folders, but for this one.
fn sources(folders: &[&str]) -> String {
    let files = folders.iter().flat_map(|folder| rust_files(&root().join(folder)));
    let files = files.filter(|path| !path.ends_with(file!().rsplit('/').next().unwrap_or_default()));
    files.map(|path| fs::read_to_string(path).expect("text")).collect()
}
