//! What services report of a switch.

use std::process::Stdio;

use dev::postgres::{connect, until};
use dev::wait::block_on;
use sqlx::{AssertSqlSafe, Executor};

use super::app::{MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, said};

/// Makes the next switch. As soon as it is committed, these reports are sent in the database that the tables have entered.
fn switch(fixture: &Fixture, step: &str, generation: u32, reports: &[&str]) -> String {
    let (left, entered) = match step {
        "cutover" => (&fixture.source, &fixture.target),
        _ => (&fixture.target, &fixture.source),
    };
    let mut command = fixture.command(&[step, OWNER]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let committed = format!("select exists (select from splitctl.switches where generation = {generation})");
    // Any role may send.
    let send: String = reports.iter().map(|report| format!("select pg_notify('splitctl_waits', '{report}');")).collect();
    block_on(async || {
        let (mut left, mut entered) = (connect(left).await?, connect(entered).await?);
        entered.execute("set role shop_svc").await?;
        until(&mut left, &committed).await;
        entered.execute(sqlx::raw_sql(AssertSqlSafe(send.clone()))).await.map(drop)
    })
    .expect("sent");
    let (code, text) = said(&running.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    text
}

#[test]
fn a_switch_prints_how_long_requests_waited_as_the_services_report_it() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let reports = [
        // Two processes say that they have followed. The second one says something else from the first: Postgres sends what
        // is equal in one transaction once.
        r#"{"owner":"shop","generation":1}"#,
        r#"{"owner": "shop","generation":1}"#,
        // Of another switch, of another owner, and of nobody.
        r#"{"owner":"shop","generation":7,"requests":9,"longest_ms":999.0}"#,
        r#"{"owner":"other","generation":1,"requests":9,"longest_ms":999.0}"#,
        "no JSON",
        r#"{"owner":"shop","generation":1,"requests":3,"longest_ms":34.2}"#,
        r#"{"owner":"shop","generation":1,"requests":2,"longest_ms":12.5}"#,
    ];
    let text = switch(&fixture, "cutover", 1, &reports);
    let waited = "5 requests waited up to 34.2 ms, by the services' reports (processes: 2)";
    assert!(text.contains(waited), "{text}");
    // Without a report, nothing is said of it.
    let text = switch(&fixture, "rollback", 2, &[]);
    assert!(text.contains("writes paused for") && !text.contains("waited up to"), "{text}");
}
