//! `cargo xtask split-demo`.

use std::process::Command;

/// The exit code shows whether a request failed or a write was lost, doubled or invented. This test checks that steps and
/// writes took place.
#[test]
fn the_whole_way_is_walked_under_load_and_no_write_is_lost_doubled_or_invented() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("split.svg");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"));
    demo.args(["split-demo", "--orders", "400", "--seconds", "1", "--load", "0.3", "--format", "json", "--svg"])
        .arg(&picture);
    let output = demo.output().expect("xtask runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{report}");
    let report: serde_json::Value = serde_json::from_str(report.lines().last().expect("a report")).expect("JSON");
    assert_eq!(report["pauses_ms"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(report["verdict"]["acknowledged"].as_u64().is_some_and(|writes| writes > 400), "{report}");
    let steps: Vec<_> = report["marks"].as_array().expect("steps").iter().filter_map(|mark| mark["step"].as_str()).collect();
    for step in ["replace customers", "copy", "verify", "detach", "cutover", "rollback", "complete"] {
        assert!(steps.contains(&step), "{steps:?}");
    }
    // A switch is marked where it was made: after the checks with which its command begins, and before the next command.
    let marks = report["marks"].as_array().expect("steps");
    let mut switches = 0;
    for (mark, next) in marks.iter().zip(&marks[1..]) {
        let at = |mark: &serde_json::Value, when: &str| mark[when].as_f64();
        let is_switch = ["cutover", "rollback"].contains(&mark["step"].as_str().expect("a name"));
        assert_eq!(at(mark, "switched").is_some(), is_switch, "{mark}");
        if let Some(switched) = at(mark, "switched") {
            assert!(at(mark, "at") < Some(switched) && Some(switched) < at(next, "at"), "{mark} {next}");
            switches += 1;
        }
    }
    assert_eq!(switches, 3, "{report}");
    let picture = std::fs::read_to_string(&picture).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.contains(">rollback</text>"), "{picture}");
}
