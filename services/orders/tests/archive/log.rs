//! What the archive takes, and what the orders are afterwards.

use chassis::events::consumer::Received;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::program::{archive, archived, check_orders, grow_old, logged, run};
use crate::support::{Service, execute, follow, id, ids, time};

/// Orders with these steps: all ways that an order can go.
const WAYS: [&[&str]; 7] =
    [&[], &["pay"], &["pay", "ship"], &["pay", "ship", "deliver"], &["cancel"], &["pay", "cancel"], &["pay"]];

async fn place_all(service: &Service) -> Vec<Value> {
    let mut orders = Vec::new();
    for steps in WAYS {
        orders.push(service.place_and(steps).await);
    }
    orders
}

async fn read_all(service: &Service, orders: &[Value]) -> Vec<Value> {
    let mut read = Vec::new();
    for order in orders {
        read.push(service.read(id(order)).await);
    }
    read
}

fn number(service: &Service, folder: &std::path::Path, words: &str) -> u64 {
    let arguments = ["--older-than", "400d", "--dry-run", "--to", &folder.display().to_string()];
    let ran = run(service, &arguments);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.ends_with(words), "{}", ran.out);
    ran.out.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A caller that traces.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_event_says_who_caused_it_and_in_which_trace() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    let placing = service.client.post("/orders").json(&service.order()).header("traceparent", TRACEPARENT);
    let order = placing.await.expect(201).json();
    for step in ["pay", "ship"] {
        service.step(id(&order), step).await;
    }
    execute(&mut service.database.owner().await, "update order_events set actor = 'ada' where version = 1").await;
    grow_old(&service).await;
    let (events, _) = follow(&service.client, "/events?wait=30", 3).await;
    archive(&service, folder.path());

    let files = archived(folder.path());
    assert_eq!(files.values().cloned().collect::<Vec<_>>(), events[..2], "as the feed had them");
    let (first, second) = (&files[id(&events[0])], &files[id(&events[1])]);
    assert_eq!((first["actor"].as_str(), first["traceparent"].as_str()), (Some("ada"), Some(TRACEPARENT)));
    assert_eq!((second.get("actor"), second.get("traceparent")), (None, None));

    // A consumer reads a line as it reads an event, also of a file that was written before lines said so.
    let read = |line: &Value| Received::structured("application/cloudevents+json", line.to_string().as_bytes());
    assert_eq!(read(first).expect("an event").traceparent.as_deref(), Some(TRACEPARENT));
    assert_eq!(read(second).expect("an event").traceparent, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_old_order_keeps_its_newest_old_event_and_the_files_have_the_others_as_the_feed_had_them() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    let orders = place_all(&service).await;
    grow_old(&service).await;
    // These steps are young: their order has an old event and a young one.
    let stepped = service.step(id(&orders[6]), "ship").await;
    place_all(&service).await;
    let before = logged(&service).await;
    let count = before.len();
    let (events, _) = follow(&service.client, "/events?wait=30", count).await;
    let orders_before = read_all(&service, &orders).await;

    let obsolete: Vec<&Value> = events
        .iter()
        .filter(|event| {
            let order = orders.iter().find(|order| event["subject"] == order["id"]);
            order.is_some_and(|order| event["data"]["version"].as_i64() < order["version"].as_i64())
        })
        .collect();
    assert_eq!(number(&service, folder.path(), "events would be moved from the log\n"), obsolete.len() as u64);
    assert_eq!((logged(&service).await, archived(folder.path()).len()), (before.clone(), 0), "nothing was done");

    let out = archive(&service, folder.path());
    assert!(out.starts_with(&format!("{} events moved from the log to ", obsolete.len())), "{out}");
    let files = archived(folder.path());
    assert_eq!(files.len(), obsolete.len());
    for event in obsolete {
        assert_eq!(files.get(id(event)), Some(event));
    }
    let kept: Vec<String> = before.into_iter().filter(|id| !files.contains_key(id)).collect();
    assert_eq!(logged(&service).await, kept);
    assert_eq!(read_all(&service, &orders).await, orders_before);
    assert_eq!(check_orders(&service), (Some(0), "14 orders, 0 different from their events, 0 repaired\n".to_owned()));

    // A second run has nothing to do, and makes no file.
    assert!(archive(&service, folder.path()).starts_with("0 events moved"));
    assert_eq!(folder.path().read_dir().expect("a folder").count(), 1);

    // When the young step is old, it takes the place of the event that was kept before it.
    grow_old(&service).await;
    archive(&service, folder.path());
    let history = service.history(id(&stepped)).await;
    assert_eq!(ids(&history), [format!("{}/3", id(&stepped))]);
    assert_eq!(check_orders(&service).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_order_goes_on_from_the_event_that_was_kept() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    let order = service.place_and(&["pay"]).await;
    grow_old(&service).await;
    let old = service.read(id(&order)).await;
    archive(&service, folder.path());
    let shipped = service.step(id(&order), "ship").await;
    let history = service.history(id(&order)).await;
    assert_eq!(ids(&history), [format!("{}/2", id(&order)), format!("{}/3", id(&order))]);
    assert_eq!(check_orders(&service).0, Some(0));

    let as_of = |moment: DateTime<Utc>| {
        let moment = moment.to_rfc3339_opts(SecondsFormat::Micros, true);
        service.client.get(format!("/orders/{}?as_of={moment}", id(&order)))
    };
    assert_eq!(as_of(Utc::now()).await.expect(200).json(), shipped);
    assert_eq!(as_of(time(&old["updated_at"])).await.expect(200).json(), old);
    let moment = TimeDelta::microseconds(1);
    // It was placed by then, but only the archive has the event.
    as_of(time(&old["updated_at"]) - moment).await.problem(410, "events-archived");
    as_of(time(&old["placed_at"])).await.problem(410, "events-archived");
    as_of(time(&old["placed_at"]) - moment).await.problem(404, "");

    // A row that has gone wrong is repaired from what was kept.
    service
        .execute("update orders set status = 'placed', total_minor = 1, placed_at = now(); delete from order_items")
        .await;
    let (code, out) = check_orders(&service);
    assert!(code == Some(1) && out.contains("status is placed, by its events shipped"), "{out}");
    let repaired = std::process::Command::new(env!("CARGO_BIN_EXE_orders"))
        .env_clear()
        .env("ORDERS_DATABASE_URL", service.database.url_as(dev::postgres::ORDERS_ROLE))
        .current_dir("/")
        .arg("rebuild")
        .status();
    assert!(repaired.expect("the program runs").success());
    assert_eq!(service.read(id(&order)).await, shipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_archived_is_missed() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    let old = service.place_and(&["pay"]).await;
    grow_old(&service).await;
    let young = service.place_and(&["pay", "ship"]).await;
    archive(&service, folder.path());
    assert_eq!(check_orders(&service).0, Some(0));
    service.execute(&format!("delete from order_events where order_id = '{}' and version < 3", id(&young))).await;
    let (code, out) = check_orders(&service);
    assert_eq!(code, Some(1));
    assert!(out.contains(&format!("order {}: event 1 is missing: 3 follows", id(&young))), "{out}");
    assert!(!out.contains(id(&old)), "{out}");
}

#[test]
fn what_is_asked_for_is_checked() {
    for (arguments, word) in [
        (&["--older-than", "400d"][..], "--to"),
        (&["--to", "/tmp"], "--older-than"),
        (&["--older-than", "23h", "--dry-run"], "at least 1d"),
        (&["--older-than", "soon", "--dry-run"], "at least 1d"),
    ] {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_orders"));
        program.env_clear().env("ORDERS_DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing").current_dir("/");
        let output = program.args(["events", "archive"]).args(arguments).output().expect("the program runs");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(word), "{err}");
    }
}

/// The right to archive is not a right to delete.
#[tokio::test]
async fn the_role_may_archive_and_still_not_delete() {
    let service = Service::start().await;
    service.place_and(&["pay"]).await;
    let url = service.database.url_as(dev::postgres::ORDERS_ROLE);
    let mut role = dev::postgres::connect(&url).await.expect("it logs in");
    for refused in ["delete from order_events", "update order_events set data = '{}'", "truncate order_events"] {
        let error = crate::support::try_execute(&mut role, refused).await.expect_err(refused);
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{refused}");
    }
    let users = dev::postgres::connect(&service.database.url_as(dev::postgres::USERS_ROLE)).await;
    let archive = "select from archive_order_events(now(), 1)";
    let error = crate::support::try_execute(&mut users.expect("it logs in"), archive).await.expect_err("refused");
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"));
}
