//! The primary dies under load, and its standby takes over. The service finds the primary at an address that leads to the
//! server in charge, as behind a proxy.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dev::address::{Address, port};
use dev::http::{Answer, Call, Client};
use dev::postgres::{ORDERS_ROLE, connect, until};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::pair::{Pair, execute, path, place, token};

const WRITERS: usize = 4;
/// Orders before the promotion, and after it.
const ORDERS: usize = 60;

/// What the writers have done.
#[derive(Default)]
struct Story {
    done: AtomicUsize,
    is_over: AtomicBool,
}

/// The answer to a call, which is repeated while there is no primary.
async fn answered(call: impl Fn() -> Call) -> Answer {
    loop {
        match call().await {
            answer if answer.status == 503 => tokio::time::sleep(Duration::from_millis(10)).await,
            answer => return answer,
        }
    }
}

/// Places orders and pays them. Each read sees all that its client has done.
async fn write(story: &Story, client: &Client, user: Uuid) -> Vec<String> {
    let mut events = Vec::new();
    while !story.is_over.load(Ordering::SeqCst) {
        let key = Uuid::now_v7().to_string();
        let placed = answered(|| place(client, user).header("idempotency-key", &key)).await.expect(201);
        let (seen, path) = (token(&placed), path(&placed.json()));
        let id = path.rsplit_once('/').expect("an id").1;
        let found = answered(|| client.get(&path).header("read-after", &seen)).await.expect(200);
        assert_eq!(found.json()["status"], "placed");
        let list = answered(|| client.get(format!("/orders?user_id={user}&limit=1")).header("read-after", &seen)).await;
        assert_eq!(list.expect(200).json()["items"][0]["id"], id, "the newest order is missing");
        events.push(format!("{id}/1"));

        let paid = answered(|| client.post(format!("{path}/pay"))).await;
        // 409: it was paid when the primary died, and this answer was lost.
        if paid.status != 409 {
            let seen = token(&paid.expect(200));
            let found = answered(|| client.get(&path).header("read-after", &seen)).await.expect(200);
            assert_eq!(found.json()["status"], "paid");
        }
        events.push(format!("{id}/2"));
        story.done.fetch_add(1, Ordering::SeqCst);
    }
    events
}

/// Follows the feed until it has shown all these events: everything that it has shown.
async fn follow(client: Client, mut all: watch::Receiver<Option<usize>>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    let mut next = "/events?limit=20".to_owned();
    loop {
        let known = *all.borrow_and_update();
        if known.is_some_and(|known| told.len() >= known) {
            return told;
        }
        let page = answered(|| client.get(&next)).await.expect(200);
        let events = page.json();
        let ids = events.as_array().expect("events").iter().map(|event| event["id"].as_str().expect("an id").to_owned());
        told.extend(ids);
        let link = page.header("link");
        next = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link").0.to_owned();
        tokio::task::yield_now().await;
    }
}

/// The sum of a counter's series with this label.
async fn count(client: &Client, series: &str) -> f64 {
    let metrics = client.get("/metrics").await.text();
    metrics.lines().filter_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_and_across_a_promotion_nobody_misses_an_own_change_and_the_feed_is_whole() {
    let mut pair = Pair::start();
    // What is acknowledged is on the standby's disk.
    let mut owner = pair.database.owner().await;
    execute(&mut owner, "alter system set synchronous_standby_names = '*'").await;
    execute(&mut owner, "select pg_reload_conf()").await;
    until(&mut owner, "select exists (select from pg_stat_replication where sync_state = 'sync')").await;
    let address = Address::start(port(&pair.primary.url("x"))).await.expect("a port");
    let client = pair.service_at(&address.url(&pair.database.url_as(ORDERS_ROLE)), "5s");
    pair.until_read(&client, true).await;
    let before = count(&client, "db_reads_total{source=\"standby\"}").await;

    let (story, all) = (Arc::new(Story::default()), watch::Sender::new(None));
    let followers = [follow(client.clone(), all.subscribe()), follow(client.clone(), all.subscribe())].map(tokio::spawn);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (story, client, user) = (story.clone(), client.clone(), pair.add_user().await);
        writers.spawn(async move { write(&story, &client, user).await });
    }
    let until_done = async |number: usize| {
        let done = async || story.done.load(Ordering::SeqCst) >= number;
        dev::wait::until(format!("{number} orders"), done).await;
    };
    until_done(ORDERS).await;
    assert!(count(&client, "db_reads_total{source=\"standby\"}").await > before, "nothing came from the standby");
    pair.primary.stop(true).expect("stopped");
    execute(&mut pair.on_standby().await, "select pg_promote()").await;
    address.lead_to(port(&pair.standby.url("x")));
    until_done(story.done.load(Ordering::SeqCst) + ORDERS).await;
    story.is_over.store(true, Ordering::SeqCst);
    let written: Vec<String> = writers.join_all().await.concat();

    let mut log = connect(&pair.standby.url(pair.name())).await.expect("the new primary answers");
    let log: Vec<String> =
        sqlx::query_scalar("select format('%s/%s', order_id, version) from order_events order by epoch, xid, position")
            .fetch_all(&mut log)
            .await
            .expect("the log");
    all.send_replace(Some(log.len()));
    for follower in followers {
        assert_eq!(follower.await.expect("it ends"), log, "each event once, in the order of the log");
    }
    let places: HashMap<&String, usize> = log.iter().zip(0..).collect();
    assert!(written.iter().all(|event| places.contains_key(event)), "an acknowledged change is lost");
    // The new primary is its own standby.
    pair.until_read(&client, true).await;
    let order = Value::from(written[0].split('/').next());
    assert_eq!(client.get(format!("/orders/{}", order.as_str().expect("an id"))).await.expect(200).json()["id"], order);
}
