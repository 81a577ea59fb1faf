//! The program, and a log that is old enough for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dev::postgres::{ORDERS_ROLE, until};
use serde_json::Value;

use crate::support::{Service, execute, value};

/// How the program ended.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The program on the service's database, in a folder without a file `.env`.
pub fn command(service: &Service, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().env("ORDERS_DATABASE_URL", service.database.url_as(ORDERS_ROLE)).current_dir("/");
    command.args(["events", "archive"]).args(arguments);
    command
}

/// Runs the program to its end.
pub fn run(service: &Service, arguments: &[&str]) -> Ran {
    let output = command(service, arguments).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Archives what is older than 400 days into the folder, to the end.
pub fn archive(service: &Service, folder: &Path) -> String {
    let ran = run(service, &["--older-than", "400d", "--to", &folder.display().to_string()]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    ran.out
}

/// Lets 500 days pass, for all that has happened.
pub async fn grow_old(service: &Service) {
    let mut owner = service.database.owner().await;
    execute(
        &mut owner,
        "set timezone = 'UTC';
         update order_events
         set occurred_at = occurred_at - interval '500 days',
             data = data || jsonb_build_object(
                 'placed_at', (data ->> 'placed_at')::timestamptz - interval '500 days',
                 'updated_at', (data ->> 'updated_at')::timestamptz - interval '500 days');
         update orders
         set placed_at = placed_at - interval '500 days', updated_at = updated_at - interval '500 days'",
    )
    .await;
    until_shown(service).await;
}

/// Waits until the feed shows all events. Any transaction of the server holds the later ones back.
pub async fn until_shown(service: &Service) {
    let shown = "select not exists (select from order_events where xid >= pg_snapshot_xmin(pg_current_snapshot()))";
    until(&mut service.database.owner().await, shown).await;
}

/// The ids of all events in the log.
pub async fn logged(service: &Service) -> Vec<String> {
    let ids = "select coalesce(array_agg(order_id || '/' || version order by epoch, xid, position), '{}') from order_events";
    value(&mut service.database.owner().await, ids).await
}

/// All events in the folder's files, by id. A last line without its end is none.
pub fn archived(folder: &Path) -> BTreeMap<String, Value> {
    let mut events = BTreeMap::new();
    for file in folder.read_dir().expect("a folder") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8");
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let id = event["id"].as_str().expect("an id").to_owned();
            let before = events.insert(id, event.clone());
            assert!(before.is_none_or(|before| before == event), "{event}");
        }
    }
    events
}

/// Checks that every order is the fold of what the log has: what `orders rebuild --check` prints.
pub fn check_orders(service: &Service) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().env("ORDERS_DATABASE_URL", service.database.url_as(ORDERS_ROLE)).current_dir("/");
    let output = command.args(["rebuild", "--check"]).output().expect("the program runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}
