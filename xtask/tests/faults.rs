//! `cargo xtask faults`.

use std::process::Command;

/// The exit code shows whether a write was lost or doubled, a request was answered wrongly or late, or one was refused that
/// must not be. Here, the faults are few and short; `.ci/full` has all.
#[test]
fn no_fault_loses_or_doubles_a_write_and_every_request_is_answered() {
    let faults = ["killed", "frozen", "full", "cut", "read-only", "neighbour-garbage", "rotation"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["faults", "--seconds", "1"]).args(faults.iter().flat_map(|fault| ["--only", fault]));
    let output = command.output().expect("xtask runs");
    let (said, report) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}\n{report}");
    let rows: Vec<_> = report.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), faults.len(), "{report}");
    for row in rows {
        let requests: u64 = row.split('|').nth(2).and_then(|cell| cell.trim().parse().ok()).unwrap_or(0);
        assert!(requests > 0 || row.contains("not tried"), "{row}");
    }
    let acknowledged = report.lines().last().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    assert!(acknowledged.is_some_and(|writes| writes > 100), "{report}");
    assert!(report.contains("0 lost, 0 doubled"), "{report}");
}
