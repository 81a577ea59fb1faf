//! What README.md tells its readers to type works as written.

mod running;

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use running::{Place, Up};

/// The shell commands of a section, and the pieces of output that its comments `#= …` promise, in order.
fn commands(section: &str) -> (String, Vec<String>) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).expect("README.md");
    let start = readme.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = &readme[start + 1..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let (mut script, mut promises) = (String::new(), Vec::new());
    // Blocks within a list are indented.
    let mut block: Option<usize> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        match block {
            None if trimmed == "```sh" => block = Some(line.len() - trimmed.len()),
            None => {}
            Some(_) if trimmed == "```" => block = None,
            Some(indent) => {
                if let Some(promise) = trimmed.strip_prefix("#= ") {
                    promises.push(promise.to_owned());
                } else {
                    script.push_str(line.get(indent..).unwrap_or_default());
                    script.push('\n');
                }
            }
        }
    }
    assert!(!script.is_empty() && block.is_none(), "the commands of {section}");
    (script, promises)
}

/// Runs a script as a reader would, but on the test's ports, and compares what it prints with what was promised.
fn run(place: &Place, up: &Up, script: &str, promises: &[String]) {
    let (url, root) = (shared(up), Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder"));
    let splitctl = if script.contains("cargo splitctl") { build_splitctl(root) } else { String::new() };
    let script = format!("set -eu\n{script}")
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{}", place.ports[0]))
        .replace("127.0.0.1:8082", &format!("127.0.0.1:{}", place.ports[1]))
        .replace("cargo xtask", env!("CARGO_BIN_EXE_xtask"))
        .replace("cargo splitctl", &format!("{splitctl} --manifest {}", root.join("split.toml").display()));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env("DATABASE_URL", url).current_dir(place.folder.path());
    // The line to paste for `splitctl`, if there is one.
    let export = up.lines.iter().find_map(|line| line.trim_start().strip_prefix("export "));
    shell.envs(export.into_iter().flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('=')));
    let output = shell.output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut rest = said.as_str();
    for promise in promises {
        let at =
            rest.find(promise.as_str()).unwrap_or_else(|| panic!("`{promise}` does not follow in:\n{rest}\nof\n{said}"));
        rest = &rest[at + promise.len()..];
    }
    assert!(promises.len() > 8, "{promises:?}");
}

/// The shared database, as the line to paste has it.
fn shared(up: &Up) -> String {
    up.line("psql").split_whitespace().nth(1).expect("a URL").to_owned()
}

/// It is another package's program, so cargo has not built it for this test.
fn build_splitctl(root: &Path) -> String {
    let mut build = Command::new(env!("CARGO"));
    let built = build.args(["build", "--quiet", "--bin", "splitctl"]).current_dir(root).status().expect("cargo runs");
    assert!(built.success());
    let folder = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().and_then(Path::parent).expect("the target folder");
    folder.join("debug/splitctl").display().to_string()
}

/// As long as a reader needs to type the first commands.
fn wait_for_both_to_follow(up: &Up) {
    running::until("both follow", || {
        let both = "select (select count(*) from orders_cursors) + (select count(*) from users_cursors)";
        let output = Command::new("psql").args([&shared(up), "-Atc", both]).output().expect("psql runs");
        String::from_utf8_lossy(&output.stdout).trim() == "2"
    });
}

#[test]
fn the_tour_and_the_ways_around_the_limits_work_as_written() {
    let (tour, mut promises) = commands("A tour");
    let (limits, more) = commands("Known limits");
    promises.extend(more);
    let place = Place::new();
    let up = place.up();
    run(&place, &up, &format!("{tour}\n{limits}"), &promises);
}

#[test]
fn the_tour_works_on_a_downloaded_postgres() {
    let (tour, promises) = commands("A tour");
    let place = Place::new();
    if let Some(up) = place.up_on_download(18) {
        run(&place, &up, &tour, &promises);
    }
}

#[test]
fn the_replicas_are_put_behind_the_views_and_taken_back_as_written() {
    let (script, promises) = commands("Replicas, step by step");
    let place = Place::new();
    let mut up = place.xtask(&["up"]);
    up.env("EVENTS_VIA", "feed");
    let up = Up::start(up);
    wait_for_both_to_follow(&up);
    run(&place, &up, &script, &promises);
}

#[test]
fn orders_moves_out_as_written_and_a_later_up_finds_it_where_it_lives() {
    let (script, promises) = commands("Moving out, step by step");
    let place = Place::new();
    let mut up = place.xtask(&["up", "--next", "orders"]);
    up.env("EVENTS_VIA", "feed");
    let up = Up::start(up);
    wait_for_both_to_follow(&up);
    run(&place, &up, &script, &promises);
    assert!(std::fs::read_to_string(place.folder.path().join("couplings.svg")).is_ok_and(|map| map.contains("<svg")));
    up.signal(Signal::SIGTERM);
    assert_eq!(up.end().0, Some(0));

    let up = place.up();
    assert!(up.lines.iter().any(|line| line.contains("orders has moved to 127.0.0.1:")), "{:?}", up.lines);
    assert!(up.paste("curl").contains("Mary Shelley"));
    let orders = Command::new("psql").args([&shared(&up), "-Atc", "select to_regclass('orders') is null"]).output();
    assert_eq!(String::from_utf8_lossy(&orders.expect("psql runs").stdout).trim(), "t");
    let down = place.xtask(&["down", "--wipe"]).output().expect("xtask runs");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(place.is_quiet() && !place.data().exists());
}
