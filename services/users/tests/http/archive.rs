//! `users events archive`, the feed, and a user's history.

use std::process::Command;

use dev::postgres::{USERS_ROLE, until};
use serde_json::json;

use crate::support::{Service, id, next, path};

/// A caller that traces.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_keeps_the_newest_of_its_old_events() {
    let (service, folder) = (Service::start(), tempfile::tempdir().expect("a folder"));
    let user = service.register("ada").await;
    let start = next(&service.client.get("/events?limit=1").await.expect(200)).expect("a link");
    for name in ["Ada L.", "Ada Lovelace"] {
        let renaming = service.client.patch(path(&user)).json(&json!({ "name": name }));
        renaming.header("traceparent", TRACEPARENT).await.expect(200);
    }
    let other = service.register("eve").await;
    service.execute("update user_events set occurred_at = occurred_at - interval '500 days'").await;
    service.client.delete(path(&other)).await.expect(204);
    let before = service.history(&user).await;
    let shown = "select not exists (select from user_events where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
    until(&mut service.database.owner().await, shown).await;

    let mut program = Command::new(env!("CARGO_BIN_EXE_users"));
    program.env_clear().env("USERS_DATABASE_URL", service.database.url_as(USERS_ROLE)).current_dir("/");
    let output = program.args(["events", "archive", "--older-than", "400d", "--to"]).arg(folder.path()).output();
    let output = output.expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.starts_with("2 events moved"), "{out}{err}");
    let file = folder.path().read_dir().expect("a folder").next().expect("a file").expect("a file").path();
    assert!(file.display().to_string().contains("/users-events-"), "{}", file.display());
    let lines = std::fs::read_to_string(file).expect("text");
    let archived: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(archived, before[..2]);
    assert_eq!((archived[0].get("traceparent"), archived[1]["traceparent"].as_str()), (None, Some(TRACEPARENT)));

    assert_eq!(service.history(&user).await, before[2..]);
    assert_eq!(service.history(&other).await.len(), 2, "what happened lately stays");
    assert_eq!(service.get(&user).await["name"], "Ada Lovelace");
    service.client.get(&start).await.problem(410, "events-archived");
    let (kept, _) = service.follow("/events?wait=30&limit=1", 3).await;
    assert_eq!(kept[0]["subject"], id(&user));
}
