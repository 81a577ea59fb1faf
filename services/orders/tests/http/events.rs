//! What has happened: to one order, and to all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use dev::http::Client;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Service, execute, follow, id, ids, next, pages};

/// What is announced of an order: all of it but the customer, who is not orders' to tell of.
fn data(order: &Value) -> Value {
    let mut data = order.clone();
    data.as_object_mut().expect("an order").remove("customer");
    data
}

/// The CloudEvent that made an order what it is.
fn event(order: &Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("{}/{}", id(order), order["version"]),
        "source": "/orders",
        "type": format!("order.{}.v1", order["status"].as_str().expect("text")),
        "subject": id(order),
        "time": order["updated_at"],
        "datacontenttype": "application/json",
        "data": data(order),
    })
}

/// Takes an order through these steps, and tells the events that should be seen.
async fn live(service: &Service, steps: &[&str]) -> Vec<Value> {
    let mut order = service.place().await;
    let mut events = vec![event(&order)];
    for step in steps {
        order = service.step(id(&order), step).await;
        events.push(event(&order));
    }
    events
}

#[tokio::test]
async fn an_orders_history_and_the_feed_tell_every_step_in_full() {
    let service = Service::start().await;
    let mut expected = Vec::new();
    for steps in [&["pay", "ship", "deliver"][..], &["pay", "cancel"], &[]] {
        let events = live(&service, steps).await;
        let history = format!("/orders/{}/events", events[0]["subject"].as_str().expect("an id"));
        assert_eq!(pages(&service.client, &history).await, events);
        assert_eq!(pages(&service.client, &format!("{history}?limit=1")).await, events);
        expected.extend(events);
    }
    let order = service.place().await;
    expected.push(event(&order));
    let cancel = service.client.post(format!("/orders/{}/cancel", id(&order))).json(&json!({ "reason": "late" }));
    let mut cancelled = event(&cancel.await.expect(200).json());
    cancelled["data"]["cancel_reason"] = json!("late");
    expected.push(cancelled);

    assert_eq!(follow(&service.client, "/events?wait=30", expected.len()).await.0, expected);
    assert_eq!(follow(&service.client, "/events?wait=30&limit=2", expected.len()).await.0, expected);
    assert_eq!(service.history(id(&order)).await, expected[expected.len() - 2..]);
}

/// Neither a repeat nor a refusal is news.
#[tokio::test]
async fn what_changes_nothing_is_not_told() {
    let service = Service::start().await;
    let place = || service.client.post("/orders").header("idempotency-key", "a").json(&service.order());
    let order = place().await.expect(201).json();
    place().await.expect(201);
    service.client.post(format!("/orders/{}/ship", id(&order))).await.expect(409);
    service.client.post(format!("/orders/{}/pay", id(&order))).header("if-match", "\"7\"").await.expect(412);
    service.client.post("/orders").json(&service.order_of(Uuid::nil())).await.expect(422);
    let last = live(&service, &[]).await;
    let (events, _) = follow(&service.client, "/events?wait=30", 2).await;
    assert_eq!(events, [event(&order), last[0].clone()]);
}

#[tokio::test]
async fn the_feed_always_says_where_to_go_on() {
    let service = Service::start().await;
    let empty = service.client.get("/events").await.expect(200);
    assert_eq!(empty.header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(empty.json(), json!([]));
    let start = next(&empty).expect("a link");
    // Still the start: what is new comes once.
    let again = service.client.get(&start).await.expect(200);
    assert_eq!((again.json(), next(&again)), (json!([]), Some(start.clone())));

    let first = live(&service, &["pay"]).await;
    let (events, end) = follow(&service.client, &format!("{start}&wait=30&limit=1"), 2).await;
    assert_eq!(events, first);
    // The other parameters stay as they were.
    assert!(end.contains("wait=30") && end.contains("limit=1"), "{end}");
    let second = live(&service, &[]).await;
    assert_eq!(follow(&service.client, &end, 1).await.0, second);
    // A place of the feed stays good.
    assert_eq!(follow(&service.client, &format!("{start}&wait=30"), 3).await.0, [first, second].concat());
}

#[tokio::test]
async fn a_feed_without_news_holds_the_answer_as_long_as_it_was_asked_to() {
    let service = Service::start().await;
    let asked = Instant::now();
    let answer = service.client.get("/events?wait=1").await.expect(200);
    assert_eq!(answer.json(), json!([]));
    assert!(asked.elapsed().as_millis() >= 1000);

    // An event ends the wait, whichever instance it happened in. Half a minute is what each would take without.
    for instance in [service.client.clone(), service.second_instance()] {
        let asked = Instant::now();
        let path = next(&service.client.get("/events?limit=1000").await.expect(200)).expect("a link");
        let waiting = tokio::spawn(service.client.get(format!("{path}&wait=30")).into_future());
        let order = instance.post("/orders").json(&service.order()).await.expect(201).json();
        let answer = waiting.await.expect("an answer").expect(200);
        let told = answer.json();
        assert_eq!(told.as_array().and_then(|events| events.last()), Some(&event(&order)));
        assert!(asked.elapsed().as_secs() < 30);
    }
}

#[tokio::test]
async fn a_bad_parameter_of_the_feed_is_refused() {
    let service = Service::start().await;
    service.place().await;
    service.place().await;
    let link = next(&service.client.get("/events").await.expect(200)).expect("a link");
    let (_, cursor) = link.split_once("after=").expect("a cursor");
    let page = service.client.get("/orders?limit=1").await.expect(200).json();
    let of_a_list = page["next_cursor"].as_str().expect("another page");
    let of_users = chassis::http::cursor::encode("feed/users", &[0; 24]);
    let after = |cursor: &str| format!("after={cursor}");
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=",
        "limit=1.5",
        "limit=1&limit=2",
        "wait=-1",
        "wait=31",
        "wait=",
        "wait=0.5",
        "wait=1s",
        "wait=0&wait=0",
        "after=",
        "after=0",
        "after=nonsense",
        "cursor=AAAA",
        "type=order.placed.v1",
        "from=start",
        "from=",
        &format!("from=end&after={cursor}"),
        &after(of_a_list),
        &after(&of_users),
        &after(&cursor[1..]),
        &after(&cursor[..cursor.len() - 1]),
        &format!("after={cursor}&after={cursor}"),
    ] {
        let answer = service.client.get(format!("/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        answer.problem(400, "");
    }
    service.client.get(format!("/events?limit=1000&wait=0&after={cursor}")).await.expect(200);
}

/// What every transaction does that writes.
const TAKE_A_NUMBER: &str = "select pg_current_xact_id()";

/// Appends an event to the log, in a transaction of the test's.
async fn append(connection: &mut PgConnection, order: Uuid) {
    let row = format!("('{order}', 1, 'late', '{{}}', now())");
    execute(connection, &format!("insert into order_events (order_id, version, type, data, occurred_at) values {row}"))
        .await;
}

#[tokio::test]
async fn an_event_waits_for_older_transactions_and_none_is_lost() {
    let service = Service::start().await;
    let feed = async |path: &str| service.client.get(path).await.expect(200);

    // It has taken its number, and may or may not write an event.
    let mut owner = service.database.owner().await;
    let mut older = owner.begin().await.expect("a transaction");
    execute(&mut older, TAKE_A_NUMBER).await;
    let order = service.place().await;
    let paid = service.step(id(&order), "pay").await;
    let answer = feed("/events?limit=1000").await;
    assert_eq!(answer.json(), json!([]));
    let held_at = next(&answer).expect("a link");
    // The order's own history withholds nothing: it is read whole.
    assert_eq!(service.history(id(&order)).await, [event(&order), event(&paid)]);

    let late = Uuid::now_v7();
    append(&mut older, late).await;
    assert_eq!(feed(&held_at).await.json(), json!([]));
    older.commit().await.expect("committed");
    let (events, _) = follow(&service.client, &format!("{held_at}&wait=30"), 3).await;
    assert_eq!(ids(&events), [format!("{late}/1"), format!("{}/1", id(&order)), format!("{}/2", id(&order))]);
}

/// Whoever takes a snapshot after asking for the end has everything: there, or in what follows the end.
#[tokio::test]
async fn the_end_of_the_feed_is_before_whatever_is_not_committed_yet() {
    let service = Service::start().await;
    service.place().await;
    // Another test's transaction may hold its event back, and would put the end before it.
    follow(&service.client, "/events?wait=30", 1).await;
    let mut owner = service.database.owner().await;
    let mut older = owner.begin().await.expect("a transaction");
    let late = Uuid::now_v7();
    append(&mut older, late).await;
    let between = service.place().await;
    let answer = service.client.get("/events?from=end&limit=5&wait=30").await.expect(200);
    assert_eq!(answer.json(), json!([]));
    let link = next(&answer).expect("a link");
    assert!(!link.contains("from"), "{link}");
    older.commit().await.expect("committed");
    let after = service.place().await;
    let (events, _) = follow(&service.client, &link, 3).await;
    assert_eq!(ids(&events), [format!("{late}/1"), format!("{}/1", id(&between)), format!("{}/1", id(&after))]);
}

#[tokio::test]
async fn an_event_is_told_once_an_older_transaction_is_rolled_back() {
    let service = Service::start().await;
    let mut owner = service.database.owner().await;
    let mut older = owner.begin().await.expect("a transaction");
    append(&mut older, Uuid::now_v7()).await;
    let expected = live(&service, &["pay"]).await;
    assert_eq!(service.client.get("/events").await.expect(200).json(), json!([]));
    let waiting = tokio::spawn(service.client.get("/events?wait=30").into_future());
    older.rollback().await.expect("rolled back");
    let told = waiting.await.expect("an answer").expect(200).json();
    assert!(told == json!(expected) || told == json!(expected[..1]), "{told}");
}

/// As after a restore to another cluster, whose transactions start counting anew: the log's numbers are all above those
/// to come, and mean nothing.
#[tokio::test]
async fn an_older_epoch_is_told_first_whatever_its_transactions_numbers() {
    let service = Service::start().await;
    let old = live(&service, &["pay"]).await;
    let mut owner = service.database.owner().await;
    execute(&mut owner, "update order_events set xid = (9e18::numeric + version)::text::xid8").await;
    let answer = service.client.get("/events").await.expect(200);
    assert_eq!(answer.json(), json!([]), "in this epoch those are still to come");
    let start = next(&answer).expect("a link");

    let function = "function order_event_epoch() returns bigint language sql stable parallel safe";
    execute(&mut owner, &format!("create or replace {function} as 'select 2::bigint'")).await;
    // Told at once, even though a transaction is open that is older than the numbers say.
    let mut older = owner.begin().await.expect("a transaction");
    execute(&mut older, TAKE_A_NUMBER).await;
    let answer = service.client.get(&start).await.expect(200);
    assert_eq!(answer.json(), json!(old));
    older.rollback().await.expect("rolled back");

    let new = live(&service, &[]).await;
    let (events, _) = follow(&service.client, &format!("{start}&wait=30"), 3).await;
    assert_eq!(events, [old, new.clone()].concat());
    // Nor does it come again to a reader of the old epoch.
    let after_old = next(&answer).expect("a link");
    assert_eq!(follow(&service.client, &format!("{after_old}&wait=30"), 1).await.0, new);
}

const WRITERS: usize = 6;
const ORDERS: usize = 12;
const STEPS: [&str; 3] = ["pay", "ship", "deliver"];

/// Appends events until told to stop, each in a transaction that takes its time to commit it: how many.
async fn append_slowly(mut owner: PgConnection, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut transaction = owner.begin().await.expect("a transaction");
        append(&mut transaction, Uuid::now_v7()).await;
        execute(&mut transaction, "select pg_sleep(0.01)").await;
        transaction.commit().await.expect("committed");
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_the_feed_sees_every_event_once_and_in_order_while_many_write() {
    let service = Service::start().await;
    let instances = [service.client.clone(), service.second_instance()];
    let write = async |client: Client, order: Value| {
        for _ in 0..ORDERS {
            let order = client.post("/orders").json(&order).await.expect(201).json();
            for step in STEPS {
                client.post(format!("/orders/{}/{step}", id(&order))).await.expect(200);
            }
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (first, second) = (service.database.owner().await, service.database.owner().await);
    let slow = [first, second].map(|owner| tokio::spawn(append_slowly(owner, stop.clone())));
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write(instances[n % 2].clone(), service.order()))).collect();

    // In small batches, all the while.
    let mut events = Vec::new();
    let mut path = "/events?limit=7&wait=1".to_owned();
    while writers.iter().any(|writer| !writer.is_finished()) {
        let answer = service.client.get(path).await.expect(200);
        events.extend(answer.json().as_array().expect("a batch").clone());
        path = next(&answer).expect("where to go on");
    }
    for writer in writers {
        writer.await.expect("written");
    }
    stop.store(true, Ordering::Relaxed);
    let mut late = 0;
    for slow in slow {
        late += slow.await.expect("appended");
    }
    let count = WRITERS * ORDERS * (1 + STEPS.len()) + late;
    let (rest, end) = follow(&service.client, &path.replace("wait=1", "wait=30"), count - events.len()).await;
    events.extend(rest);

    assert_eq!(events.len(), count, "each once");
    let mut versions: HashMap<&str, u64> = HashMap::new();
    for event in &events {
        let (order, version) = id(event).split_once('/').expect("an order and a version");
        let before = versions.entry(order).or_default();
        assert_eq!(version.parse(), Ok(*before + 1), "{order}");
        *before += 1;
    }
    assert_eq!(versions.len(), WRITERS * ORDERS + late);
    // That was all, and the order in which it was told never changes.
    assert_eq!(service.client.get(end.replace("wait=30", "wait=0")).await.expect(200).json(), json!([]));
    let (again, _) = follow(&service.client, "/events?limit=1000&wait=30", count).await;
    assert_eq!(ids(&again), ids(&events));
}
