//! A standby that fails costs no request.

use std::time::{Duration, Instant};

use dev::http::Client;
use futures_util::future::join_all;

use crate::pair::{Pair, execute, path, place, token};

/// Thirty reads at once. Each is answered, and soon: a read waits for a standby for a second at most.
async fn read_at_once(client: &Client, path: &str) {
    let begun = Instant::now();
    for answer in join_all((0..30).map(|_| client.get(path).into_future())).await {
        answer.expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_freezes_dies_or_is_promoted_costs_no_request() {
    let mut pair = Pair::start();
    let user = pair.add_user().await;
    let client = pair.service("10s").await;
    let answer = place(&client, user).await.expect(201);
    let (seen, path) = (token(&answer), path(&answer.json()));
    client.get(&path).header("read-after", &seen).await.expect(200);

    let frozen = pair.standby.freeze().expect("frozen");
    read_at_once(&client, &path).await;
    pair.until_read(&client, false).await;
    drop(frozen);
    pair.until_read(&client, true).await;

    pair.standby.stop(true).expect("stopped");
    read_at_once(&client, &path).await;
    pair.until_read(&client, false).await;
    read_at_once(&client, &path).await;
    pair.standby.start_again().expect("started");
    pair.until_read(&client, true).await;

    // It goes its own way: what it has is of no use any more, although it answers.
    execute(&mut pair.on_standby().await, "select pg_promote()").await;
    pair.until_read(&client, false).await;
    client.post(format!("{path}/pay")).await.expect(200);
    assert_eq!(client.get(&path).await.expect(200).json()["status"], "paid");
    assert_eq!(client.get(&path).header("read-after", &seen).await.expect(200).json()["status"], "paid");
}
