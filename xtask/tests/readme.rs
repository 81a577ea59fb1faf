//! The shell commands of README.md and docs/*.md work as written.
//!
//! A comment above a block says where the block runs. `<!-- run with: cargo xtask up -->` holds until the next such
//! comment of the document. `<!-- not run: needs Docker -->` holds for the next block alone. A line `#= text` in a
//! block promises a text: the commands since the last promise print it.

mod documents;
mod running;
mod shell;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use documents::{Document, Mark, documents, root, rust_files};
use nix::sys::signal::Signal;
use running::{Place, Up};
use shell::{run_documents, shared};

/// Where most blocks run.
const UP: &str = "cargo xtask up";
/// Where replicas take the views' place, and orders moves.
const UP_NEXT: &str = "EVENTS_VIA=feed cargo xtask up --next orders";
/// The start of every document's path.
const ALL: &str = "";

/// Waits for as long as a reader needs to type the first commands.
fn wait_for_both_to_follow(up: &Up) {
    running::until("both follow", || {
        let both = "select (select count(*) from orders_cursors) + (select count(*) from users_cursors)";
        let output = Command::new("psql").args([&shared(up), "-Atc", both]).output().expect("psql runs");
        String::from_utf8_lossy(&output.stdout).trim() == "2"
    });
}

#[test]
fn every_block_of_shell_commands_is_run_or_says_why_not() {
    let (mut run, mut not_run) = (BTreeMap::new(), Vec::new());
    for block in documents().iter().flat_map(Document::blocks) {
        match block.mark {
            Mark::RunWith(setting) => {
                assert!([UP, UP_NEXT].contains(&setting.as_str()), "{}: no test runs `{setting}`", block.at);
                *run.entry(setting).or_insert(0) += 1;
            }
            Mark::NotRun(reason) => not_run.push(format!("{}: {reason}", block.at)),
            Mark::Missing => panic!("{}: no comment above says where the block runs, or why it does not", block.at),
        }
    }
    let run: String = run.iter().map(|(setting, number)| format!("{number} blocks run with `{setting}`\n")).collect();
    // Past the test harness, which shows only what a failed test prints.
    let _ = write!(std::io::stderr(), "{run}{} blocks are not run:\n  {}\n", not_run.len(), not_run.join("\n  "));
    assert!(!run.is_empty());
}

#[test]
fn the_tour_and_what_needs_both_services_work_as_written() {
    let place = Place::new();
    let up = place.up();
    run_documents(&place, &up, UP, ALL);
}

#[test]
fn the_tour_works_on_a_downloaded_postgres() {
    let place = Place::new();
    if let Some(up) = place.up_on_download(18) {
        run_documents(&place, &up, UP, "README.md");
    }
}

#[test]
fn replicas_work_and_orders_moves_out_as_written_and_a_later_up_finds_it_where_it_lives() {
    let place = Place::new();
    let mut up = place.xtask(&["up", "--next", "orders"]);
    up.env("EVENTS_VIA", "feed");
    let up = Up::start(up);
    wait_for_both_to_follow(&up);
    run_documents(&place, &up, UP_NEXT, ALL);
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

/// The block below the comment `<!-- file: path -->` is that file.
#[test]
fn files_that_documents_show_are_the_files() {
    for document in documents() {
        for part in document.text.split("<!-- file: ").skip(1) {
            let (path, below) = part.split_once(" -->").expect("the end of the comment");
            let file = Document::read(&root().join(path)).text;
            let shown = below.trim_start().split_once('\n').and_then(|(_, block)| block.split_once("```"));
            assert_eq!(shown.map(|(block, _)| block.trim_end()), Some(file.trim_end()), "{}: {path}", document.path);
        }
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|character| character.is_alphanumeric() || "-_".contains(*character)).collect()
}

#[test]
fn links_between_documents_lead_to_files_and_headings_that_exist() {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md"].map(|path| Document::read(&root().join(path)));
    let mut broken = Vec::new();
    for document in documents().into_iter().chain(others) {
        let here = root().join(&document.path);
        let links = document.text.split("](").skip(1).filter_map(|behind| behind.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { here.clone() } else { here.with_file_name(path) };
            let has = |text: &str| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            if !target.exists() || !(heading.is_empty() || has(&Document::read(&target).text)) {
                broken.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn source_files_that_documents_name_exist() {
    let files = rust_files(root());
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md"].map(|path| Document::read(&root().join(path)));
    for document in documents().into_iter().chain(others) {
        for named in document.text.split('`').filter(|piece| piece.ends_with(".rs") && !piece.contains(char::is_whitespace))
        {
            assert!(files.iter().any(|file| file.ends_with(named)), "{}: no file is called {named}", document.path);
        }
    }
}
