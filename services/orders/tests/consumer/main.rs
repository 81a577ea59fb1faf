//! What orders makes of the events of users, however they come.

#[path = "../http/dial.rs"]
mod dial;
mod fake_feed;
#[path = "../killed/mod.rs"]
mod killed;
#[expect(dead_code, reason = "shared with the suites through HTTP, which use all of it")]
#[path = "../http/support.rs"]
mod support;

use std::time::{Duration, Instant};

use chassis::events::consumer::Feed;
use chassis::events::{NoBroker, Transport};
use dev::postgres::ORDERS_ROLE;
use orders::customers::replica::{self, follow};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::task::JoinHandle;
use uuid::Uuid;

use fake_feed::{FakeFeed, event};
use killed::Program;
use support::{Service, app, id, settings};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A part of the service that follows the feed, until it is aborted.
fn consumer(service: &Service, feed: &FakeFeed) -> JoinHandle<()> {
    let app = app(&service.database.url_as(ORDERS_ROLE), &settings(10));
    let feed = Feed::new("users", &feed.address.into());
    tokio::spawn(async move { match follow(app, feed, Transport::<NoBroker>::Feed).await {} })
}

/// Waits until all of the feed has been applied.
async fn until_read(service: &Service, feed: &FakeFeed) {
    let end = feed.end();
    until(service, &format!("select exists (select from orders_cursors where log = 'users'' feed' and cursor = '{end}')"))
        .await;
}

async fn until(service: &Service, query: &str) {
    dev::postgres::until(&mut service.database.owner().await, query).await;
}

/// The replica: name, status and version of each customer, by id.
async fn customers(service: &Service) -> Vec<(Uuid, String, String, i64)> {
    let rows = "select id, name, status, version from customers_replica order by id";
    let rows = service.database.owner().await.fetch_all(rows).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn parked(service: &Service) -> Vec<String> {
    let rows = service.database.owner().await.fetch_all("select id from orders_parked_events order by id").await;
    rows.expect("rows").iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_and_late_events_change_nothing() {
    let (service, feed) = (Service::start().await, FakeFeed::start().await);
    let users: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    let consumer = consumer(&service, &feed);
    // Each version of each user three times, in an order that is none; the newest is known early for some, late for others.
    let mut events = Vec::new();
    for n in 0..users.len() * 5 * 3 {
        let (user, version) = (users[n * 7 % users.len()], 1 + (n * 11 % 5) as i64);
        events.push(event(user, version, &format!("Name {version}"), "active"));
    }
    for batch in events.chunks(13) {
        feed.publish(batch.to_vec());
        until_read(&service, &feed).await;
    }
    consumer.abort();
    let seen = customers(&service).await;
    assert_eq!(seen.len(), users.len());
    for (user, (id, name, status, version)) in users.iter().zip(&seen) {
        let newest = events.iter().filter(|event| event["data"]["id"] == json!(user));
        let newest = newest.map(|event| event["data"]["version"].as_i64().expect("a version")).max().expect("an event");
        assert_eq!((id, name.as_str(), status.as_str(), *version), (user, &*format!("Name {newest}"), "active", newest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_passed_over_and_what_cannot_be_applied_is_parked() {
    let (service, feed) = (Service::start().await, FakeFeed::start().await);
    let (ada, eve, joe) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let mut of_later = event(ada, 2, "Ada", "active");
    of_later["type"] = json!("user.promoted.v1");
    let mut without_name = event(eve, 1, "Eve", "active");
    without_name["data"].as_object_mut().expect("an object").remove("name");
    let unstorable = event(joe, 1, "Jo\0e", "active");
    let other_status = event(joe, 2, "Joe", "asleep");
    let mut quoted = event(joe, 3, "Joe", "a\0b");
    quoted["id"] = json!("nul\0");
    let all = vec![
        quoted,
        event(ada, 1, "Ada", "active"),
        of_later,
        without_name,
        unstorable,
        other_status,
        event(eve, 2, "Eve", "active"),
    ];
    feed.publish(all);
    let consumer = consumer(&service, &feed);
    until(&service, "select count(*) = 1 from orders_cursors").await;
    // The snapshot had nothing of it: it comes from the feed, as what is committed after the snapshot's beginning does.
    let cursor = format!("update orders_cursors set cursor = '{}'", fake_feed::START);
    service.execute(&cursor).await;
    until_read(&service, &feed).await;
    let seen: Vec<_> = customers(&service).await.into_iter().map(|(id, name, _, version)| (id, name, version)).collect();
    assert_eq!(seen, [(ada, "Ada".to_owned(), 1), (eve, "Eve".to_owned(), 2)]);
    assert_eq!(
        parked(&service).await,
        [format!("{eve}/1"), format!("{joe}/1"), format!("{joe}/2"), "nul\u{fffd}".to_owned()]
    );
    consumer.abort();

    // Two of them are mended; the others are as they were.
    let mend = format!("update orders_parked_events set data = replace(data, 'asleep', 'active') where id = '{joe}/2'");
    service.execute(&mend).await;
    let older =
        format!("update orders_parked_events set data = '{}' where id = '{eve}/1'", event(eve, 1, "Old", "active")["data"]);
    service.execute(&older).await;
    let app = app(&service.database.url_as(ORDERS_ROLE), &settings(10));
    let feed = Feed::new("users", &feed.address.into());
    replica::run(app, &feed, replica::Command::Retry).await.expect("tried");
    assert_eq!(parked(&service).await, [format!("{joe}/1"), "nul\u{fffd}".to_owned()]);
    let seen: Vec<_> = customers(&service).await.into_iter().map(|(_, name, _, version)| (name, version)).collect();
    assert_eq!(seen, [("Ada".to_owned(), 1), ("Eve".to_owned(), 2), ("Joe".to_owned(), 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_away_is_followed_again_from_where_it_was_left() {
    let (service, mut feed) = (Service::start().await, FakeFeed::start().await);
    let consumer = consumer(&service, &feed);
    let ada = Uuid::now_v7();
    feed.publish(vec![event(ada, 1, "Ada", "active")]);
    until_read(&service, &feed).await;
    feed.stop().await;
    feed.publish(vec![event(ada, 2, "Ada L.", "active")]);
    feed.start_again().await;
    until_read(&service, &feed).await;
    consumer.abort();
    assert_eq!(customers(&service).await, [(ada, "Ada L.".to_owned(), "active".to_owned(), 2)]);
    let again = feed.asked().into_iter().filter(|asked| !asked.contains("after=")).collect::<Vec<_>>();
    assert!(again.iter().all(|asked| asked.contains("from=end") || asked.starts_with("/users")), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_the_consumer_loses_nothing_and_does_nothing_twice() {
    const USERS: usize = 60;
    let (service, feed) = (Service::start().await, FakeFeed::start().await);
    // Small batches, so that there are many points to be killed at.
    feed.answer_at_most(2);
    let mut orders = Vec::new();
    let mut events = Vec::new();
    for n in 0..USERS {
        let user = Uuid::now_v7();
        service.add_user(user, "Ada").await;
        orders.push((user, id(&service.place_for(user).await).to_owned()));
        events.push(event(user, 1, "Ada", "active"));
        events.push(event(user, 2, "Ada L.", "active"));
        if n % 2 == 0 {
            events.push(event(user, 3, "Ada L.", "deactivated"));
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (address, via) = (format!("http://{}", feed.address), [("EVENTS_VIA", "feed".to_owned())]);
    let start = || Program::start(&folder, &service, &address, &via);
    let mut consumer = start();
    until(&service, "select count(*) = 1 from orders_cursors").await;
    feed.publish(events);
    let mut kills = 0;
    while !service_has_read(&service, &feed).await {
        // Anywhere: while it starts, reads, stores, cancels. Not a wait for anything.
        tokio::time::sleep(Duration::from_millis((kills * 7) % 30)).await;
        if kills < 15 {
            consumer.kill();
            consumer = start();
            kills += 1;
            // The server has noticed, and the next one may have its turn.
            let at = feed.asked().len();
            let started = Instant::now();
            while feed.asked().len() == at {
                assert!(started.elapsed() < PATIENCE, "it does not go on");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    consumer.kill();
    assert!(kills >= 3, "it was faster than we were: {kills}");

    let seen = customers(&service).await;
    assert_eq!(seen.len(), USERS);
    for (n, (user, order)) in orders.iter().enumerate() {
        let history = service.history(order).await;
        let types: Vec<&str> = history.iter().map(|event| event["type"].as_str().expect("text")).collect();
        let customer = seen.iter().find(|(id, ..)| id == user).expect("a customer");
        if n % 2 == 0 {
            assert_eq!((customer.2.as_str(), customer.3), ("deactivated", 3));
            assert_eq!(types, ["order.placed.v1", "order.cancelled.v1"], "once, and not twice");
            assert_eq!(history[1]["data"]["cancel_reason"], "customer-deactivated");
        } else {
            assert_eq!((customer.2.as_str(), customer.3), ("active", 2));
            assert_eq!(types, ["order.placed.v1"]);
        }
    }
    assert_eq!(parked(&service).await, Vec::<String>::new());
}

async fn service_has_read(service: &Service, feed: &FakeFeed) -> bool {
    let query = format!("select exists (select from orders_cursors where cursor = '{}')", feed.end());
    let row = service.database.owner().await.fetch_one(AssertSqlSafe(query)).await;
    row.expect("a row").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_processes_one_follows_and_another_takes_over() {
    let (service, feed) = (Service::start().await, FakeFeed::start().await);
    let first = consumer(&service, &feed);
    until(&service, "select count(*) = 1 from orders_cursors").await;
    let second = consumer(&service, &feed);
    let user = Uuid::now_v7();
    feed.publish(vec![event(user, 1, "Ada", "active")]);
    until_read(&service, &feed).await;
    assert_eq!(feed.waiting().await, 1, "both ask");
    first.abort();
    let _ = first.await;
    feed.publish(vec![event(user, 2, "Eve", "active")]);
    until_read(&service, &feed).await;
    second.abort();
    let names: Vec<String> = customers(&service).await.into_iter().map(|(_, name, ..)| name).collect();
    assert_eq!(names, ["Eve"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_has_all_pages_and_the_feed_goes_on_from_before_it() {
    let (service, feed) = (Service::start().await, FakeFeed::start().await);
    let users: Vec<Value> = (0..250).map(|n| event(Uuid::now_v7(), 1, &format!("User {n}"), "active")).collect();
    feed.publish(users.clone());
    feed.snapshot_of(&users);
    // One changes while the snapshot is taken: the page is old, and the event comes after.
    let changed: Uuid = users[17]["data"]["id"].as_str().expect("an id").parse().expect("a UUID");
    feed.publish_during_snapshot(vec![event(changed, 2, "Changed", "active")]);
    let consumer = consumer(&service, &feed);
    until(&service, "select exists (select from customers_replica where name = 'Changed')").await;
    until_read(&service, &feed).await;
    consumer.abort();
    let seen = customers(&service).await;
    assert_eq!(seen.len(), 250);
    assert_eq!(seen.iter().filter(|(_, name, _, version)| name == "Changed" && *version == 2).count(), 1);
    assert!(feed.asked().iter().filter(|asked| asked.starts_with("/users")).count() >= 3);
    assert_eq!(feed.asked().iter().filter(|asked| asked.contains("/events") && !asked.contains("after=")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_gone_are_made_up_for_by_a_snapshot_and_the_service_is_not_ready_before() {
    for cursor in [fake_feed::GONE, "unknown"] {
        let (service, feed) = (Service::start().await, FakeFeed::start().await);
        let user = Uuid::now_v7();
        service.add_user(user, "Ada").await;
        let order = id(&service.place_for(user).await).to_owned();
        let first = consumer(&service, &feed);
        until(&service, "select exists (select from orders_cursors)").await;
        first.abort();
        let _ = first.await;

        // The user was deactivated meanwhile, and the event of it is gone.
        feed.snapshot_of(&[event(user, 2, "Ada", "deactivated")]);
        feed.refuse_snapshot(true);
        service.execute(&format!("update orders_cursors set cursor = '{cursor}'")).await;
        let second = consumer(&service, &feed);
        dev::wait::until("the loss to be said", async || {
            let answer = service.client.get("/health/ready").await;
            answer.status == 503 && answer.text().contains("events of users were lost")
        })
        .await;
        let metrics = service.client.get("/metrics").await.expect(200).text();
        assert!(metrics.contains(r#"event_gaps_total{of="users"}"#), "{metrics}");
        assert!(metrics.contains(r#"event_refill_pending{of="users"}"#), "{metrics}");

        feed.refuse_snapshot(false);
        until(&service, &format!("select exists (select from orders where id = '{order}' and status = 'cancelled')")).await;
        until_read(&service, &feed).await;
        dev::wait::until("it is ready", async || service.client.get("/health/ready").await.status == 200).await;
        second.abort();
        let _ = second.await;
        assert_eq!(customers(&service).await, [(user, "Ada".to_owned(), "deactivated".to_owned(), 2)]);
        let asked = feed.asked().iter().filter(|asked| asked.contains("from=end")).count();
        assert!(asked >= 2, "the end is read before the snapshot");
    }
}
