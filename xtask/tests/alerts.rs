//! The alerts of deploy/prometheus: Prometheus' own tool tries them, and their metrics are those of docs/operations.md.

use std::path::PathBuf;
use std::process::Command;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        match Command::new("promtool").args(arguments).current_dir(folder()).output() {
            Ok(output) => {
                let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{said}\n{failed}");
            }
            Err(error) => println!("not tried: promtool ({error}); Debian has it in the package prometheus"),
        }
    }
}

#[test]
fn the_alerts_are_about_metrics_that_the_services_have() {
    let rules = std::fs::read_to_string(folder().join("alerts.yml")).expect("the rules");
    let page = std::fs::read_to_string(folder().join("../../docs/operations.md")).expect("the page");
    let expressions: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 5, "{expressions:?}");
    for expression in expressions {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let mut words = expression.split(|letter| !is_name(letter));
        let metric = words.find(|word| word.contains('_')).expect("a metric");
        assert!(page.contains(&format!("`{metric}`")), "{metric} is not on the page");
    }
}
