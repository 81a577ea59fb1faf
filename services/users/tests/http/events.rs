//! A user's history, and the feed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dev::http::Client;
use dev::postgres::USERS_ROLE;
use serde_json::{Value, json};

use crate::support::{
    Service, array, assert_utc, at_once, client, each, execute, id, items, next, path, person, settings, start,
};

const FEED: &str = "/events?wait=30";
/// Begins a transaction that has its place in the order of transactions, as one has that writes.
const BEGIN: &str = "begin; select pg_current_xact_id()";

impl Service {
    /// A user to whom everything has happened that can happen, and the answers that told so.
    async fn eventful_user(&self) -> (Value, Vec<Value>) {
        let user = self.register("ada").await;
        let mut states = vec![user.clone()];
        states.push(self.client.patch(path(&user)).json(&json!({ "name": "Ada" })).await.expect(200).json());
        self.client.delete(path(&user)).await.expect(204);
        states.push(self.get(&user).await);
        states.push(self.client.post(format!("{}/reactivate", path(&user))).await.expect(200).json());
        (user, states)
    }

    /// The batch of events at `link`, without waiting.
    async fn batch(&self, link: &str) -> Vec<Value> {
        array(&self.client.get(link).await.expect(200).json())
    }

    /// Waits until `count` connections have asked for the feed and now rest.
    async fn until_waiting(&self, count: i64) {
        let query = "select count(*) from pg_stat_activity
                     where datname = current_database() and application_name = 'users'
                       and state = 'idle' and query like '%pg_snapshot_xmin%'";
        self.until(query, count).await;
    }
}

/// The claim that `events` are CloudEvents 1.0 about one user, who was as in `states` after each.
fn assert_told(events: &[Value], states: &[Value]) {
    let types = ["user.registered.v1", "user.changed.v1", "user.deactivated.v1", "user.reactivated.v1"];
    assert_eq!(events.len(), states.len());
    for ((event, state), kind) in events.iter().zip(states).zip(types) {
        let expected = json!({
            "specversion": "1.0",
            "id": format!("{}/{}", id(state), state["version"]),
            "source": "/users",
            "type": kind,
            "subject": id(state),
            "time": state["updated_at"],
            "datacontenttype": "application/json",
            "data": state,
        });
        assert_eq!(event, &expected);
        assert_utc(&event["time"]);
    }
}

#[tokio::test]
async fn a_history_tells_what_happened_as_cloud_events_oldest_first() {
    let service = Service::start();
    service.register("another").await;
    let (user, states) = service.eventful_user().await;
    let answer = service.client.get(format!("{}/events", path(&user))).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let page = answer.json();
    assert_told(&items(&page), &states);
    assert_eq!((&page["next_cursor"], next(&answer)), (&Value::Null, None));
}

#[tokio::test]
async fn a_history_is_a_page_like_every_list() {
    let service = Service::start();
    let user = service.register("ada").await;
    for number in 2..=45 {
        let changes = json!({ "name": number.to_string() });
        service.client.patch(path(&user)).json(&changes).await.expect(200);
    }
    let (mut link, mut seen, mut sizes) = (Some(format!("{}/events", path(&user))), Vec::new(), Vec::new());
    while let Some(at) = link {
        let answer = service.client.get(&at).await.expect(200);
        sizes.push(items(&answer.json()).len());
        seen.extend(items(&answer.json()));
        link = next(&answer);
        assert_eq!(link.is_some(), answer.json()["next_cursor"].is_string());
    }
    assert_eq!(sizes, [20, 20, 5]);
    let ids: Vec<_> = (1..=45).map(|version| json!(format!("{}/{version}", id(&user)))).collect();
    assert_eq!(each(&seen, "id"), ids.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_feed_is_a_batch_of_cloud_events_with_a_link_to_what_is_next() {
    let service = Service::start();
    let answer = service.client.get("/events").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(answer.json(), json!([]));
    let from_the_start = next(&answer).expect("a link although there is nothing yet");

    let (_, states) = service.eventful_user().await;
    let (events, link) = service.follow(FEED, 4).await;
    assert_told(&events, &states);
    let answer = service.client.get(link.replace("wait=30", "wait=0")).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/cloudevents-batch+json");
    assert_eq!(answer.json(), json!([]));
    assert_eq!(next(&answer).expect("a link at the end"), link.replace("wait=30", "wait=0"), "to the same place");
    assert_eq!(service.batch(&from_the_start).await, events);
}

#[tokio::test]
async fn following_the_link_shows_every_event_once_in_an_order_that_stays() {
    let service = Service::start();
    let mut ids = Vec::new();
    for number in 0..13 {
        let user = service.register(&format!("user{number}")).await;
        ids.push(json!(format!("{}/1", id(&user))));
        if number % 3 == 0 {
            service.client.delete(path(&user)).await.expect(204);
            ids.push(json!(format!("{}/2", id(&user))));
        }
    }
    for limit in [1, 4, 18, 100, 1000] {
        let (events, link) = service.follow(&format!("/events?limit={limit}&wait=30"), 18).await;
        assert_eq!(each(&events, "id"), ids.iter().collect::<Vec<_>>(), "{limit}");
        assert!(link.contains(&format!("limit={limit}")), "{link}");
    }
    // The events are all there to be seen by now.
    for limit in [1, 5, 18] {
        assert_eq!(service.batch(&format!("/events?limit={limit}")).await.len(), limit);
    }
}

#[tokio::test]
async fn the_end_of_the_feed_is_before_whatever_is_not_committed_yet() {
    let service = Service::start();
    service.register("ada").await;
    // Another test's transaction may hold her event back, and would put the end before it.
    service.follow("/events?wait=30", 1).await;
    let mut older = service.database.owner().await;
    execute(&mut older, BEGIN).await;
    let eve = service.register("eve").await;
    let answer = service.client.get("/events?from=end&wait=30").await.expect(200);
    assert_eq!(answer.json(), json!([]));
    execute(&mut older, "rollback").await;
    let joe = service.register("joe").await;
    let (events, _) = service.follow(&next(&answer).expect("a link"), 2).await;
    assert_eq!(each(&events, "subject"), [&eve["id"], &joe["id"]]);
}

#[tokio::test]
async fn a_batch_has_1_to_1000_events() {
    let service = Service::start();
    service
        .execute(
            "insert into user_events (user_id, version, type, data, occurred_at)
             select '00000000-0000-7000-8000-000000000000', n, 'user.changed.v1', '{}', now()
             from generate_series(1, 1003) n",
        )
        .await;
    let (events, _) = service.follow("/events?limit=1000&wait=30", 1000).await;
    assert_eq!(service.batch("/events?limit=1000").await, events);
    assert_eq!(service.batch("/events?limit=1").await, events[..1]);
    assert_eq!(service.batch("/events").await, events[..100], "if the client does not say");
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=",
        "limit=x",
        "limit=1&limit=1",
        "wait=31",
        "wait=-1",
        "wait=0.5",
        "wait=",
        "wait=99999999999999999999",
        "wait=1&wait=1",
        "after=",
        "after=0",
        "after=%00",
        "after=AAAAAAAAAAEAAAAAAAAAAQAAAAAAAAAB",
        "cursor=x",
        "type=user.changed.v1",
        "from=start",
        "from=",
    ] {
        let problem = service.client.get(format!("/events?{query}")).await.problem(400, "");
        assert_eq!(problem["instance"], "/events", "{query}");
    }
}

/// Whatever `limit` says: who asks for much and reads slowly holds little memory.
#[tokio::test]
async fn a_batch_has_at_most_a_mebibyte_and_at_least_one_event() {
    const MEBIBYTE: usize = 1024 * 1024;
    let service = Service::start();
    // Of each size a few, one of which is larger than a batch may be.
    service
        .execute(
            "insert into user_events (user_id, version, type, data, occurred_at)
             select '00000000-0000-7000-8000-000000000000', n, 'user.changed.v1',
                 jsonb_build_object('filling', repeat('ä', case n when 5 then 1500000 else 30000 end)), now()
             from generate_series(1, 60) n",
        )
        .await;
    // Every event can be seen.
    service.follow("/events?limit=1&wait=30", 60).await;
    let (mut link, mut sizes, mut versions) = ("/events?limit=1000".to_owned(), Vec::new(), Vec::new());
    loop {
        let answer = service.client.get(&link).await.expect(200);
        let events = array(&answer.json());
        if events.is_empty() {
            break;
        }
        assert!(answer.body.len() <= MEBIBYTE || events.len() == 1, "{} in {}", answer.body.len(), events.len());
        sizes.push(events.len());
        versions.extend(events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()));
        link = next(&answer).expect("the feed goes on");
    }
    let expected = (1..=60).map(|version| format!("00000000-0000-7000-8000-000000000000/{version}"));
    assert_eq!(versions, expected.collect::<Vec<_>>(), "each event once, in order");
    assert_eq!(sizes[..3], [4, 1, 17], "a batch is as full as it may be");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_answered_as_soon_as_there_is_something() {
    let service = Service::start();
    let started = Instant::now();
    let waiting = start(service.client.get(FEED));
    service.until_waiting(1).await;
    assert!(!waiting.is_finished());
    let user = service.register("ada").await;
    let events = array(&waiting.await.expect("an answer").expect(200).json());
    assert_eq!(each(&events, "subject"), [&user["id"]]);
    assert!(started.elapsed() < Duration::from_secs(25), "before the wait was over");
}

#[tokio::test]
async fn waiting_ends_when_the_time_is_over() {
    let service = Service::start();
    for (wait, seconds) in [("", 0), ("?wait=0", 0), ("?wait=1", 1)] {
        let started = Instant::now();
        let answer = service.client.get(format!("/events{wait}")).await.expect(200);
        assert_eq!(answer.json(), json!([]));
        assert!(next(&answer).is_some());
        assert!(started.elapsed() >= Duration::from_secs(seconds), "{wait}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_holds_no_connection_to_the_database() {
    let service = Service::with(|settings| settings.max_connections = 1);
    let waiting: Vec<_> = (0..20).map(|_| start(service.client.get(FEED))).collect();
    service.until_waiting(1).await;
    let user = service.register("ada").await;
    for waiting in waiting {
        let events = array(&waiting.await.expect("an answer").expect(200).json());
        assert_eq!(each(&events, "subject"), [&user["id"]]);
    }
}

/// Nobody wakes the one who waits: the wake-up stays inside a process.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_at_another_instance_reaches_who_waits() {
    let service = Service::start();
    let another = client(&service.database.url_as(USERS_ROLE), &settings());
    let waiting = start(service.client.get(FEED));
    service.until_waiting(1).await;
    another.post("/users").json(&person("ada")).await.expect(201);
    assert_eq!(array(&waiting.await.expect("an answer").expect(200).json()).len(), 1);
}

/// A reader who was shown the younger event first would go past the place where the older one is about to appear.
#[tokio::test]
async fn an_event_is_withheld_while_an_older_transaction_is_open() {
    for end in ["commit", "rollback"] {
        let service = Service::start();
        let mut older = service.database.owner().await;
        execute(&mut older, BEGIN).await;
        let user = service.register("ada").await;
        let answer = service.client.get("/events?wait=1").await.expect(200);
        assert_eq!(answer.json(), json!([]));
        // Only the feed waits: what was committed is there.
        assert_eq!(service.get(&user).await, user);
        assert_eq!(service.history(&user).await.len(), 1);
        execute(&mut older, end).await;
        let (events, _) = service.follow(&next(&answer).expect("a link").replace("wait=1", "wait=30"), 1).await;
        assert_eq!(events[0]["subject"], user["id"]);
    }
}

/// After a move to another cluster its transaction ids say nothing about events from before, which may have higher ones.
#[tokio::test]
async fn events_of_an_epoch_that_is_over_are_shown_first_whatever_is_open() {
    let service = Service::start();
    let mut older = service.database.owner().await;
    execute(&mut older, BEGIN).await;
    let ada = service.register("ada").await;
    service.execute("update user_events set xid = '9000000000000000000'").await;
    assert_eq!(service.batch("/events").await, [] as [Value; 0]);
    service
        .execute(
            "create or replace function user_event_epoch() returns bigint
             language sql stable parallel safe as 'select 2::bigint'",
        )
        .await;
    let bob = service.register("bob").await;
    let answer = service.client.get(FEED).await.expect(200);
    let events = array(&answer.json());
    assert_eq!(each(&events, "subject"), [&ada["id"]], "what is of the present epoch is withheld as ever");
    execute(&mut older, "commit").await;
    let (later, link) = service.follow(&next(&answer).expect("a link"), 1).await;
    assert_eq!(later[0]["subject"], bob["id"]);
    let carl = service.register("carl").await;
    let (last, _) = service.follow(&link, 1).await;
    assert_eq!(last[0]["subject"], carl["id"]);
}

/// Registers a user the way the service does, but in a transaction that takes its number early and commits late.
async fn register_slowly(service: &Service, number: usize) {
    let mut slow = service.database.owner().await;
    execute(
        &mut slow,
        &format!(
            "{BEGIN};
             with registered as (
                 insert into users (id, email, name, status, created_at, updated_at, version)
                 values (gen_random_uuid(), 'slow{number}@example.org', 'Slow', 'active', now(), now(), 1)
                 returning id
             )
             insert into user_events (user_id, version, type, data, occurred_at)
             select id, 1, 'user.registered.v1', '{{}}', now() from registered"
        ),
    )
    .await;
    // A younger transaction that is over earlier.
    service.register(&format!("fast{number}")).await;
    execute(&mut slow, "commit").await;
}

/// Lets a user of this name go through four versions.
async fn live(client: Client, name: String) {
    let user = client.post("/users").json(&person(&name)).await.expect(201).json();
    client.patch(path(&user)).json(&json!({ "name": "Changed" })).await.expect(200);
    client.delete(path(&user)).await.expect(204);
    client.post(format!("{}/reactivate", path(&user))).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_misses_nothing_that_many_writers_write_meanwhile() {
    const USERS: usize = 40;
    const CONTENDERS: usize = 20;
    const SLOW: usize = 15;
    const EVENTS: usize = USERS * 4 + (1 + CONTENDERS) + SLOW * 2;

    let service = Service::start();
    let contended = service.register("contended").await;
    let lives = async {
        let lives: Vec<_> =
            (0..USERS).map(|number| tokio::spawn(live(service.client.clone(), format!("user{number}")))).collect();
        for life in lives {
            life.await.expect("a life");
        }
    };
    let contend = async {
        let change = |number: usize| service.client.patch(path(&contended)).json(&json!({ "name": number.to_string() }));
        for answer in at_once((0..CONTENDERS).map(change)).await {
            answer.expect(200);
        }
    };
    let slow = async {
        for number in 0..SLOW {
            register_slowly(&service, number).await;
        }
    };
    // Batches of all sizes, while it is written.
    let (.., (few, _), (many, _)) =
        tokio::join!(lives, contend, slow, service.follow("/events?limit=3&wait=30", EVENTS), service.follow(FEED, EVENTS));

    assert_eq!(few, many, "every reader sees the same order");
    assert_eq!(service.batch("/events?limit=1000").await, many, "and later ones do too");
    let mut versions: HashMap<&str, Vec<String>> = HashMap::new();
    for event in &many {
        let subject = event["subject"].as_str().expect("a subject");
        versions.entry(subject).or_default().push(event["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(versions.len(), USERS + 1 + SLOW * 2);
    for (subject, ids) in versions {
        let gapless: Vec<_> = (1..=ids.len()).map(|version| format!("{subject}/{version}")).collect();
        assert_eq!(ids, gapless, "each once and in order");
    }
}
