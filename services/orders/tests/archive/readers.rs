//! Who reads the log while it is archived: clients of the feed, the relay of a broker, and an open transaction.

use chassis::events::{Outbox, OwnLog};
use dev::postgres::ORDERS_ROLE;
use sqlx::Executor;

use crate::program::{archive, archived, grow_old, logged, run, until_shown};
use crate::support::{Service, app, execute, follow, id, ids, next, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_missed_steps_is_told_so_and_one_who_did_not_reads_on() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    for _ in 0..3 {
        service.place_and(&["pay", "ship"]).await;
    }
    grow_old(&service).await;
    let start = next(&service.client.get("/events?limit=1").await.expect(200)).expect("a link");
    let (_, middle) = follow(&service.client, "/events?limit=1&wait=30", 5).await;
    let (_, all) = follow(&service.client, "/events?limit=1&wait=30", 9).await;
    let end = next(&service.client.get("/events?from=end").await.expect(200)).expect("a link");
    archive(&service, folder.path());
    let young = service.place().await;
    let young_id = format!("{}/1", id(&young));

    // One event was missed, or eight.
    for behind in [&start, &middle] {
        let problem = service.client.get(behind).await.problem(410, "events-archived");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("from=end") && detail.contains("/orders"), "{detail}");
    }
    // What was archived was read before.
    for ahead in [all, format!("{end}&wait=30")] {
        let (events, _) = follow(&service.client, &ahead, 1).await;
        assert_eq!(ids(&events), [young_id.as_str()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_reader_gets_the_newest_event_of_every_order_and_is_told_what_is_archived_meanwhile() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    for _ in 0..3 {
        service.place_and(&["pay"]).await;
    }
    grow_old(&service).await;
    archive(&service, folder.path());
    let young = service.place_and(&["pay"]).await;
    until_shown(&service).await;
    let kept = logged(&service).await;
    assert_eq!(kept.len(), 5);
    let (events, end) = follow(&service.client, "/events?wait=30&limit=1", 5).await;
    assert_eq!(ids(&events), kept.iter().map(String::as_str).collect::<Vec<_>>());

    // Of a reader in the archived part, one behind it, and one at the end, only those who miss a step are told.
    let (_, within) = follow(&service.client, "/events?wait=30&limit=1", 2).await;
    let (_, behind) = follow(&service.client, "/events?wait=30&limit=1", 4).await;
    grow_old(&service).await;
    archive(&service, folder.path());
    assert!(archived(folder.path()).contains_key(&format!("{}/1", id(&young))));
    service.client.get(&within).await.problem(410, "events-archived");
    service.client.get(&behind).await.problem(410, "events-archived");
    let none = service.client.get(end.replace("wait=30", "wait=0")).await.expect(200);
    assert_eq!(none.json(), serde_json::json!([]));
    let (events, _) = follow(&service.client, "/events?wait=30&limit=1", 4).await;
    assert_eq!(ids(&events)[3], format!("{}/2", id(&young)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_has_not_confirmed_stays() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    for _ in 0..3 {
        service.place_and(&["pay"]).await;
    }
    grow_old(&service).await;
    let before = logged(&service).await;
    let app = app(&service.database.url_as(ORDERS_ROLE), &settings(2));
    let outbox = OwnLog { store: &app, cursor: "own log, to the broker" };
    let unsent = outbox.read(Default::default(), 10).await.expect("read");
    outbox.store_published(unsent[2].0).await.expect("stored");

    let to = folder.path().display().to_string();
    for dry in [&["--dry-run"][..], &[]] {
        let ran = run(&service, &[&["--older-than", "400d", "--to", &to], dry].concat());
        assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(&format!("event {} of ", before[3])), "{}", ran.out);
        assert!(ran.out.contains("the broker has not confirmed it yet") && ran.out.starts_with("1 events "), "{}", ran.out);
    }
    assert_eq!(logged(&service).await, before[1..], "the first two orders' steps are not all sent");
    let still = outbox.read(unsent[2].0, 10).await.expect("read");
    assert_eq!(still.len(), 3);

    outbox.store_published(unsent[5].0).await.expect("stored");
    archive(&service, folder.path());
    assert_eq!(logged(&service).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_feed_does_not_show_yet_stays() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    let mut writer = service.database.owner().await;
    writer.execute("begin; select pg_current_xact_id()").await.expect("a transaction");
    service.place_and(&["pay"]).await;
    let aged = "update order_events set occurred_at = occurred_at - interval '500 days'";
    execute(&mut service.database.owner().await, aged).await;
    assert!(archive(&service, folder.path()).starts_with("0 events moved"));
    writer.execute("commit").await.expect("committed");
    until_shown(&service).await;
    assert!(archive(&service, folder.path()).starts_with("1 events moved"));
}
