//! The program beside the real orders service, by the feed.

mod support;

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use dev::wait::until;
use serde_json::{Value, json};

use support::{Orders, Program, Webhook, kill, nothing_is_missing, serve};

fn by_feed(url: &str, webhook: &Webhook) -> Program {
    Program::new("feed", &["--orders-url", url], webhook)
}

/// Takes everything, but one in four only at the second attempt.
fn shaky(key: &str, before: usize) -> StatusCode {
    let is_refused = before == 0 && key.bytes().map(usize::from).sum::<usize>() % 4 == 0;
    if is_refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_misses_nothing_and_repeats_only_what_was_cut_off() {
    let (orders, webhook) = (Orders::start().await, Webhook::start(shaky).await);
    let program = by_feed(&orders.url(), &webhook);
    nothing_is_missing(&orders, &webhook, &program, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undisturbed_it_sends_each_notification_once() {
    let (orders, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let program = by_feed(&orders.url(), &webhook);
    orders.place_and(&["pay", "ship"]).await;
    let _running = program.start();
    orders.place_and(&["cancel"]).await;
    let events = orders.events().await;
    webhook.until_taken(&events).await;
    let mut taken = webhook.taken();
    taken.sort();
    assert_eq!(taken, events);
    let texts: Vec<String> = webhook.bodies().iter().map(|body| body["text"].as_str().expect("a text").to_owned()).collect();
    for happened in ["was placed", "is paid", "is on its way", "was cancelled"] {
        assert!(texts.iter().any(|text| text.contains(happened)), "{happened} in {texts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_the_webhook_refuses_is_parked_the_rest_goes_on_and_a_command_sends_it_again() {
    // The first event of each order is refused for good, once.
    let (orders, webhook) = (Orders::start().await, Webhook::start(refuse_first).await);
    let program = by_feed(&orders.url(), &webhook);
    orders.place_and(&["pay"]).await;
    let events = orders.events().await;
    let running = program.start();
    webhook.until_taken(&events[1..]).await;
    until("it is parked", async || program.file().get("parked") == Some(&1)).await;
    kill(running);
    let _running = dev::process::Leashed::start(&program.command(&["--retry-parked"]), dev::process::Signal::SIGKILL);
    webhook.until_taken(&events).await;
    assert_eq!(webhook.taken(), [events[1].clone(), events[0].clone()]);
}

fn refuse_first(key: &str, before: usize) -> StatusCode {
    if key.ends_with("/1") && before == 0 { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let (orders, webhook) = (Orders::start().await, Webhook::start(|_, _| StatusCode::OK).await);
    let program = by_feed(&orders.url(), &webhook);
    let _running = program.start();
    orders.place_and(&[]).await;
    webhook.until_taken(&orders.events().await).await;
    let second = tokio::process::Command::from(program.command(&[])).status().await.expect("it runs");
    assert!(!second.success());
}

/// A feed of these pages, and after them no news. A cursor that it does not know is gone.
type Pages = Arc<Mutex<Vec<Value>>>;

async fn answer(State(pages): State<Pages>, uri: Uri) -> Response {
    let after = uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after="));
    let Ok(page) = after.map_or(Ok(0), str::parse::<usize>) else { return StatusCode::BAD_REQUEST.into_response() };
    let (page, next) = {
        let pages = pages.lock().expect("unpoisoned");
        if page > pages.len() {
            return StatusCode::GONE.into_response();
        }
        (pages.get(page).cloned().unwrap_or_else(|| json!([])), (page + 1).min(pages.len()))
    };
    if page == json!([]) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    ([(header::LINK, format!("</events?after={next}>; rel=\"next\""))], Json(page)).into_response()
}

fn event(order: u32, r#type: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": format!("{order}/1"), "source": "/orders", "type": r#type, "data": data })
}

fn order(id: u32) -> Value {
    json!({ "id": id.to_string(), "status": "placed" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_it_does_not_know_is_skipped_and_counted_and_what_it_cannot_read_is_parked() {
    let webhook = Webhook::start(|_, _| StatusCode::OK).await;
    let page = json!([
        event(1, "order.placed.v2", &order(1)),
        event(2, "order.placed.v1", &order(2)),
        event(3, "order.placed.v1", &json!({})),
        event(4, "order.placed.v2", &order(4)),
        event(5, "order.placed.v1", &order(5)),
    ]);
    let pages = Pages::new(Mutex::new(vec![page]));
    let address = serve(Router::new().fallback(answer).with_state(pages)).await;
    let program = by_feed(&format!("http://{address}"), &webhook);
    let _running = program.start();
    webhook.until_taken(&["2/1".to_owned(), "5/1".to_owned()]).await;
    program.until_stored(2).await;
    let file = program.file();
    assert_eq!((file.get("order.placed.v2"), file.get("parked"), file.len()), (Some(&2), Some(&1), 3), "{file:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_left_the_feed_before_they_were_read_are_noticed_and_the_rest_is_sent_once() {
    let webhook = Webhook::start(|_, _| StatusCode::OK).await;
    let placed = |number| json!([event(number, "order.placed.v1", &order(number))]);
    let pages = Pages::new(Mutex::new(vec![placed(1), placed(2), placed(3)]));
    let address = serve(Router::new().fallback(answer).with_state(pages.clone())).await;
    let program = by_feed(&format!("http://{address}"), &webhook);
    let running = program.start();
    webhook.until_taken(&["3/1".to_owned()]).await;
    program.until_stored(3).await;
    kill(running);
    // The feed has been thinned: it begins with a known event, and its cursors are new.
    *pages.lock().expect("unpoisoned") = vec![placed(3), placed(5)];
    let _running = program.start();
    webhook.until_taken(&["5/1".to_owned()]).await;
    // Only notifications of one order have an order.
    let mut taken = webhook.taken();
    taken.sort();
    assert_eq!(taken, ["1/1", "2/1", "3/1", "5/1"]);
    assert_eq!(program.file().get("lost: feed"), Some(&1));
}
