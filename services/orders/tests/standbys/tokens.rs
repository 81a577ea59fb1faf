//! What clients see of a standby that is behind: their own changes, and everything that is older than the limit.

use dev::http::Call;
use dev::postgres::until;
use serde_json::json;

use crate::pair::{Pair, execute, path, place, token};

/// The version of the only order that an answer shows.
async fn version(call: Call) -> i64 {
    let answer = call.await.expect(200).json();
    let is_page = answer.get("next_cursor").is_some();
    let order = if is_page { answer["items"].as_array().and_then(|items| items.last()).expect("one") } else { &answer };
    // An event carries the order.
    order.get("data").unwrap_or(order)["version"].as_i64().expect("a version")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_its_own_changes_and_others_within_the_limit() {
    let pair = Pair::start();
    let user = pair.add_user().await;
    let client = pair.service("15s").await;
    let answer = place(&client, user).header("idempotency-key", "once").await.expect(201);
    let (placed, order) = (token(&answer), answer.json());
    let path = path(&order);
    let mut standby = pair.on_standby().await;
    let has_it = "select count(*) = 1 from order_events where xid < pg_snapshot_xmin(pg_current_snapshot())";
    until(&mut standby, has_it).await;
    execute(&mut standby, "select pg_wal_replay_pause()").await;
    until(&mut standby, "select pg_get_wal_replay_pause_state() = 'paused'").await;

    // A change reads its order from the primary, and tells its own place.
    let paid = token(&client.post(format!("{path}/pay")).header("if-match", "\"1-1\"").await.expect(200));
    let reads = [
        path.clone(),
        "/orders".to_owned(),
        format!("/orders?user_id={user}&status=placed"),
        format!("{path}/events"),
        format!("{path}?as_of=2999-01-01T00:00:00Z"),
    ];
    for read in &reads {
        assert_eq!(version(client.get(read)).await, 1, "{read} comes from the standby");
        assert_eq!(version(client.get(read).header("read-after", &placed)).await, 1, "{read}: the standby has it");
    }
    let events = async |call: Call| call.await.expect(200).json().as_array().expect("events").len();
    assert_eq!(events(client.get("/events")).await, 1);
    let own = reads.map(|read| read.replace("placed", "paid"));
    for read in &own {
        for seen in [&paid, "now", "", "AAAA"] {
            assert_eq!(version(client.get(read).header("read-after", seen)).await, 2, "{read} after {seen}");
        }
        let twice = client.get(read).header("read-after", &placed).header("read-after", &placed);
        assert_eq!(version(twice).await, 2, "{read}: two values are none");
    }
    // The feed, too. Who waits for news gets what the primary has.
    assert_eq!(events(client.get("/events").header("read-after", &paid)).await, 2);
    assert_eq!(events(client.get("/events?wait=30")).await, 2);
    // Whoever reads the lists after the end of the feed misses nothing of what was before.
    let end = token(&client.get("/events?from=end").await.expect(200));
    assert_eq!(version(client.get("/orders").header("read-after", end)).await, 2);
    // A repeat shows the present order, and says where it is at least.
    let repeat = place(&client, user).header("idempotency-key", "once").await.expect(201);
    assert_eq!((repeat.header("idempotency-replayed"), &repeat.json()["version"]), ("true", &json!(2)));
    assert_eq!(version(client.get(&path).header("read-after", token(&repeat))).await, 2);
    assert_eq!(client.get(format!("/open-orders?user_id={user}")).await.expect(200).json()["open_count"], 1);

    // Once the limit has passed, everybody reads from the primary.
    dev::wait::until("the order is paid for all", async || version(client.get(&path)).await == 2).await;
    pair.until_read(&client, false).await;
    execute(&mut standby, "select pg_wal_replay_resume()").await;
    pair.until_read(&client, true).await;
}
