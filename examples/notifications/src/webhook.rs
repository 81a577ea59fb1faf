//! Sends what is due to the webhook.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode, Url};

use crate::store::Store;

/// How many notifications are sent at once, each of another order.
const AT_ONCE: u32 = 16;
/// How long the webhook may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a notification is sent before it is parked: for about seven minutes.
const ATTEMPTS: u32 = 12;
/// How often to look for due notifications.
const LOOK: Duration = Duration::from_millis(50);

/// Sends notifications for ever; without `webhook`, prints them. A crash between the webhook's answer and `finish` repeats a
/// notification, with the same key.
pub async fn send(store: &Store, webhook: Option<&Url>) -> Result<Infallible> {
    let client = Client::builder().timeout(ANSWER).build()?;
    loop {
        let due = store.due(AT_ONCE)?;
        let outcomes = join_all(due.iter().map(|(id, body, _)| post(&client, webhook, id, body))).await;
        for ((id, _, attempts), outcome) in due.iter().zip(outcomes) {
            let Err((error, may_help)) = outcome else {
                store.finish(id, "sent", None, TimeDelta::zero())?;
                continue;
            };
            let state = if may_help && attempts + 1 < ATTEMPTS { "waiting" } else { "parked" };
            tracing::warn!(event.id = id, error, state, "the notification was not taken");
            // From half a second to a minute, and a random part of it, so that not all come at once.
            let most = (500_i64 << attempts.min(&7)).min(60_000);
            store.finish(id, state, Some(&error), TimeDelta::milliseconds(fastrand::i64(most / 2..=most)))?;
        }
        if due.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Sends a notification. An error says why it was not taken, and whether it may be later.
async fn post(client: &Client, webhook: Option<&Url>, id: &str, body: &str) -> Result<(), (String, bool)> {
    let Some(webhook) = webhook else {
        println!("{body}");
        return Ok(());
    };
    let request = client.post(webhook.clone()).header("idempotency-key", id).body(body.to_owned());
    match request.header("content-type", "application/json").send().await.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err((status.to_string(), status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)),
        // The URL may contain a secret.
        Err(error) => Err((error.without_url().to_string(), true)),
    }
}
