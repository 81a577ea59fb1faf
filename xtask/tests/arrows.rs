//! Which crate may use which, and which file may import which: CONTRIBUTING.md shows the arrows.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};
use sources::{files, read, root};

/// What each crate may use. Tests may use `dev` as well.
const ARROWS: [(&str, &[&str]); 10] = [
    ("broker", &["chassis"]),
    ("chassis", &[]),
    ("dev", &["shared-db"]),
    // A third service knows only the contract of the events.
    ("notifications", &[]),
    ("orders", &["broker", "chassis", "shared-db"]),
    ("shared-db", &[]),
    ("splitctl", &[]),
    ("users", &["broker", "chassis", "shared-db"]),
    // Developers' tools may use everything, and only xtask uses them.
    ("bench", &["broker", "chassis", "dev", "orders", "shared-db", "users"]),
    ("xtask", &["bench", "broker", "chassis", "dev", "orders", "shared-db", "splitctl", "users"]),
];

/// Additional arrows for tests: the suite of orders also runs against users, and the third service beside orders.
const IN_TESTS: [(&str, &str); 5] = [
    ("orders", "users"),
    ("notifications", "broker"),
    ("notifications", "chassis"),
    ("notifications", "orders"),
    ("notifications", "shared-db"),
];

/// Files that more than their own crate may include: a file or a folder, and the crates (none: all).
const SHARED_FILES: [(&str, &[&str]); 4] = [
    ("migrations", &[]),
    ("services/orders/migrations", &[]),
    ("services/users/migrations", &[]),
    ("splitctl/contract", &["shared-db", "xtask"]),
];

/// The crates whose files must not import each other in a circle.
const WITHOUT_CIRCLES: [&str; 6] =
    ["services/broker", "services/chassis", "services/orders", "services/users", "shared-db", "splitctl"];

#[derive(Clone, Copy, PartialEq)]
enum Code {
    Program,
    Test,
}

fn may_use(from: &str, to: &str, code: Code) -> bool {
    let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == from).unwrap_or_else(|| panic!("no arrows for {from}"));
    allowed.contains(&to) || (code == Code::Test && (to == "dev" || IN_TESTS.contains(&(from, to))))
}

/// The crates of the workspace.
struct Workspace {
    folders: BTreeMap<String, PathBuf>,
    /// From, to, and which code of the first crate has the dependency.
    dependencies: Vec<(String, String, Code)>,
}

fn workspace() -> Workspace {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("metadata");
    let folder = |manifest: &Path| manifest.parent().and_then(|folder| folder.strip_prefix(root()).ok().map(Path::to_owned));
    let packages = metadata.workspace_packages();
    let folders: BTreeMap<_, _> = packages
        .iter()
        .map(|package| (package.name.to_string(), folder(package.manifest_path.as_std_path()).expect("in the project")))
        .collect();
    let mut dependencies = Vec::new();
    for package in packages {
        for dependency in package.dependencies.iter().filter(|dependency| folders.contains_key(&dependency.name)) {
            let code = if dependency.kind == DependencyKind::Development { Code::Test } else { Code::Program };
            dependencies.push((package.name.to_string(), dependency.name.clone(), code));
        }
    }
    Workspace { folders, dependencies }
}

#[test]
fn crates_depend_on_each_other_only_as_the_arrows_say() {
    let wrong = workspace().dependencies.into_iter().filter(|(from, to, code)| !may_use(from, to, *code));
    let wrong: Vec<_> = wrong.map(|(from, to, _)| format!("{from} must not depend on {to}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The paths that a file includes, relative to the project's folder.
fn included(file: &Path, package: &Path) -> Vec<PathBuf> {
    let (text, beside) = (read(file), file.parent().expect("a folder"));
    let mut paths = Vec::new();
    for (start, base) in [
        ("include_str!(\"", beside),
        ("include_bytes!(\"", beside),
        ("include!(\"", beside),
        ("#[path = \"", beside),
        ("migrate!(\"", package),
    ] {
        let names = text.split(start).skip(1).filter_map(|rest| rest.split('"').next());
        paths.extend(names.map(|name| plain(&base.join(name))));
    }
    // The path is the first text after `query_file!`, `query_file_as!` and `query_file_scalar!`.
    let statements = text.split("query_file").skip(1).filter_map(|rest| rest.split('"').nth(1));
    paths.extend(statements.map(|name| plain(&package.join(name))));
    paths
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}

#[test]
fn crates_include_each_others_files_only_as_the_arrows_say() {
    let folders = workspace().folders;
    let mut wrong = Vec::new();
    for (name, folder) in &folders {
        for file in files(&folder.display().to_string(), "rs") {
            let code = if file.starts_with(folder.join("tests")) { Code::Test } else { Code::Program };
            for path in included(&file, folder) {
                let shared = SHARED_FILES.iter().filter(|(shared, _)| path.starts_with(shared));
                let owner = folders.iter().find(|(_, folder)| path.starts_with(folder)).map(|(owner, _)| owner);
                let is_shared = shared.into_iter().any(|(_, with)| with.is_empty() || with.contains(&name.as_str()));
                if let Some(owner) = owner
                    && !(is_shared || owner == name || may_use(name, owner, code))
                {
                    wrong.push(format!("{} must not include {}", file.display(), path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The paths after `use`, with each group written out. Modules of tests do not count.
fn imports(text: &str) -> Vec<String> {
    let program = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut paths = Vec::new();
    for line in program.split(';') {
        let statement = line.lines().skip_while(|line| !line.trim_start().contains("use ")).collect::<Vec<_>>().join(" ");
        let words = statement.trim_start();
        let words = words.strip_prefix("pub ").or(words.strip_prefix("pub(crate) ")).unwrap_or(words);
        if let Some(tree) = words.strip_prefix("use ") {
            write_out("", &tree.replace(' ', ""), &mut paths);
        }
    }
    paths
}

fn write_out(start: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((path, group)) = tree.split_once('{') else {
        return paths.push(format!("{start}{tree}"));
    };
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut begin) = (0, 0);
    for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if begin < at {
                    write_out(&format!("{start}{path}"), &group[begin..at], paths);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// `moving/mod.rs` and `moving.rs` are both the module `["moving"]`.
fn module(file: &Path) -> Vec<String> {
    let mut names: Vec<String> = file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

/// For each module, the modules that its file imports by `use crate::…` and `use super::…`.
fn graph(package: &str) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let source = format!("{package}/src");
    let all: Vec<_> = files(&source, "rs").into_iter().filter(|file| !file.starts_with(format!("{source}/bin"))).collect();
    let below = |file: &Path| module(file.strip_prefix(&source).expect("a source file"));
    let modules: BTreeSet<_> = all.iter().map(|file| below(file)).collect();
    let mut graph: BTreeMap<Vec<String>, BTreeSet<_>> = BTreeMap::new();
    for file in &all {
        let own = below(file);
        for path in imports(&read(file)) {
            let mut names: Vec<&str> = path.split("::").collect();
            let mut target = match names.first() {
                Some(&"crate") => Vec::new(),
                Some(&"super") => own.clone(),
                _ => continue,
            };
            while names.first() == Some(&"super") {
                target.pop();
                names.remove(0);
            }
            target.extend(names.iter().filter(|name| **name != "crate").map(|name| (*name).to_owned()));
            while !modules.contains(&target) && target.pop().is_some() {}
            if target != own {
                graph.entry(own.clone()).or_default().insert(target);
            }
        }
    }
    graph
}

fn reachable(graph: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>, from: &Vec<String>) -> BTreeSet<Vec<String>> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for target in graph.get(module).into_iter().flatten() {
            if found.insert(target.clone()) {
                next.push(target);
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut circles = BTreeSet::new();
    for package in WITHOUT_CIRCLES {
        let graph = graph(package);
        for own in graph.keys().filter(|own| reachable(&graph, own).contains(*own)) {
            let back = reachable(&graph, own).into_iter().filter(|other| reachable(&graph, other).contains(own));
            let circle: Vec<_> = back.map(|module| format!("crate::{}", module.join("::"))).collect();
            circles.insert(format!("{package}: {}", circle.join(", ")));
        }
    }
    assert!(circles.is_empty(), "these modules import each other:\n{}", circles.into_iter().collect::<Vec<_>>().join("\n"));
}
