//! Runs the shell commands of the documents as a reader would, and compares what they print with what they promise.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test program uses a part of it, and may block")]

use std::path::Path;
use std::process::Command;

use crate::documents::{Document, Mark, Step, build, documents, root};
use crate::running::{Place, Up};

/// What `cargo xtask`, `cargo splitctl` and `cargo run` are in a test: the programs that are built already. The last one
/// runs until Ctrl-C.
const COMMANDS: &str = r#"set -eu
cargo() {
    case $1 in
    xtask) shift; 'XTASK' "$@" ;;
    splitctl) shift; splitctl --manifest 'MANIFEST' "$@" ;;
    run) shift 4; timeout 5 notifications "$@" || [ $? -eq 124 ] ;;
    *) echo "cargo $1: not in a test" >&2; return 1 ;;
    esac
}
"#;

/// The steps that run in a setting, by document, in the order in which the documents are run.
fn steps_of(setting: &str) -> Vec<(String, Vec<Step>)> {
    let of_setting = |document: Document| {
        let blocks = document.blocks().into_iter().filter(|block| block.mark == Mark::RunWith(setting.to_owned()));
        (document.path, blocks.flat_map(|block| block.steps).collect::<Vec<_>>())
    };
    documents().into_iter().map(of_setting).filter(|(_, steps)| !steps.is_empty()).collect()
}

/// Runs the documents whose path starts with `which` one after the other: each in a shell of its own, as a reader would, but
/// on the test's ports.
pub fn run_documents(place: &Place, up: &Up, setting: &str, which: &str) {
    let programs = build(&["splitctl", "notifications"], false, &[]).expect("they build");
    let mut promises = 0;
    for (document, steps) in steps_of(setting).into_iter().filter(|(document, _)| document.starts_with(which)) {
        promises += run(place, up, &programs, &document, &steps);
    }
    assert!(promises > 8, "{setting}: {promises} promises");
}

/// Runs the steps of one document, and returns how many promises they have kept.
fn run(place: &Place, up: &Up, programs: &Path, document: &str, steps: &[Step]) -> usize {
    let marker = |number: usize| format!("@@ end of step {number} @@");
    let mut script = COMMANDS.replace("XTASK", env!("CARGO_BIN_EXE_xtask"));
    script = script.replace("MANIFEST", &root().join("split.toml").display().to_string());
    for (number, step) in steps.iter().enumerate() {
        script += &format!("{}printf '\\n%s\\n' '{}'\n", step.commands, marker(number));
    }
    let script = script
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{}", place.ports[0]))
        .replace("127.0.0.1:8082", &format!("127.0.0.1:{}", place.ports[1]));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env("PATH", format!("{}:{path}", programs.display())).current_dir(place.folder.path());
    shell.env("DATABASE_URL", shared(up));
    // The line to paste for `splitctl`, if there is one.
    let export = up.lines.iter().find_map(|line| line.trim_start().strip_prefix("export "));
    shell.envs(export.into_iter().flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('=')));
    let output = shell.output().expect("a shell");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{document}: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut rest = printed.as_str();
    for (number, step) in steps.iter().enumerate() {
        let (mut of_step, after) = rest.split_once(&marker(number)).expect("every step ends with its marker");
        for promise in &step.promises {
            let Some((_, behind)) = of_step.split_once(promise.as_str()) else {
                panic!("{document}: `{promise}` does not follow in:\n{of_step}\nprinted by:\n{}", step.commands)
            };
            of_step = behind;
        }
        rest = after;
    }
    steps.iter().map(|step| step.promises.len()).sum()
}

/// The URL of the shared database, as `up` printed it for psql.
pub fn shared(up: &Up) -> String {
    up.line("psql").split_whitespace().nth(1).expect("a URL").to_owned()
}
