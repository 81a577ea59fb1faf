//! `pay`, `ship`, `deliver` and `cancel`.

use dev::http::Answer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, at_once, id, time};

/// Every way to every state: the state, and the steps to it.
const STATES: [(&str, &[&str]); 6] = [
    ("placed", &[]),
    ("paid", &["pay"]),
    ("shipped", &["pay", "ship"]),
    ("delivered", &["pay", "ship", "deliver"]),
    ("cancelled", &["cancel"]),
    ("cancelled", &["pay", "cancel"]),
];
/// Every step, and the state it leads to.
const STEPS: [(&str, &str); 4] = [("pay", "paid"), ("ship", "shipped"), ("deliver", "delivered"), ("cancel", "cancelled")];
/// The state machine.
const ALLOWED: [(&str, &str); 5] =
    [("placed", "pay"), ("paid", "ship"), ("shipped", "deliver"), ("placed", "cancel"), ("paid", "cancel")];

#[tokio::test]
async fn an_order_takes_the_steps_its_state_allows_and_no_other() {
    let service = Service::start().await;
    for (state, way) in STATES {
        for (step, to) in STEPS {
            let before = service.place_and(way).await;
            assert_eq!(before["status"], state);
            let path = format!("/orders/{}", id(&before));
            let answer = service.client.post(format!("{path}/{step}")).await;
            let now = service.client.get(&path).await.expect(200);

            if ALLOWED.contains(&(state, step)) {
                let after = answer.clone().expect(200).json();
                let version = way.len() + 2;
                let mut expected = before.clone();
                expected["status"] = json!(to);
                expected["version"] = json!(version);
                expected["updated_at"] = after["updated_at"].clone();
                assert_eq!(after, expected, "{state} {step}");
                assert!(time(&after["updated_at"]) >= time(&before["updated_at"]));
                assert_eq!(answer.header("etag"), format!("\"{version}-1\""));
                assert_eq!((now.header("etag"), now.json()), (answer.header("etag"), after));
            } else {
                let problem = answer.problem(409, "invalid-transition");
                let detail = problem["detail"].as_str().expect("text");
                assert!(detail.contains(state) && detail.contains(to), "{state} {step}: {detail}");
                assert_eq!(now.json(), before, "{state} {step}");
            }
        }
    }
}

#[tokio::test]
async fn a_step_goes_ahead_only_if_the_order_is_as_the_client_knows_it() {
    let service = Service::start().await;
    let order = service.place_and(&["pay"]).await;
    let ship = |if_match: &[&str]| {
        let call = service.client.post(format!("/orders/{}/ship", id(&order)));
        if_match.iter().fold(call, |call, tag| call.header("if-match", tag))
    };
    // Of the tag "2-1" only the 2 speaks of the order. Comparison is strong: a weak tag matches nothing.
    let other: [&[&str]; 13] = [
        &[r#""1-1""#],
        &[r#""3-1""#],
        &[r#""1-2""#],
        &[r#""22-1""#],
        &[r#""1""#],
        &[r#""""#],
        &[""],
        &["2-1"],
        &[r#"W/"2-1""#],
        &[r#""02-1""#],
        &[r#""-2""#],
        &[r#""1-1", "3-1""#],
        &["nonsense", "\"\u{9}\""],
    ];
    for tags in other {
        ship(tags).await.problem(412, "");
    }
    assert_eq!(service.read(id(&order)).await, order);

    let this: [&[&str]; 8] = [
        &[r#""2-1""#],
        // Whatever has become of the customer meanwhile.
        &[r#""2-999""#],
        &[r#""2""#],
        &["*"],
        &[r#""7-1", "2-1""#],
        &[r#""7-1","2-1" , "8-1""#],
        &[r#""7-1""#, r#""2-1""#],
        &[],
    ];
    for tags in this {
        let order = service.place_and(&["pay"]).await;
        let call = service.client.post(format!("/orders/{}/ship", id(&order)));
        let call = tags.iter().fold(call, |call, tag| call.header("if-match", tag));
        assert_eq!(call.await.expect(200).header("etag"), r#""3-1""#, "{tags:?}");
    }

    // The tag of any answer will do, the one after the customer has changed included.
    let order = service.place().await;
    service.rename_user(service.user, "Ada Lovelace").await;
    let pay = service.client.post(format!("/orders/{}/pay", id(&order))).header("if-match", r#""1-1""#).await.expect(200);
    assert_eq!(pay.header("etag"), r#""2-2""#);
    let ship = service.client.post(format!("/orders/{}/ship", id(&order))).header("if-match", pay.header("etag"));
    assert_eq!(ship.await.expect(200).json()["customer"]["name"], "Ada Lovelace");
}

#[tokio::test]
async fn an_unknown_order_comes_before_another_version_before_a_wrong_state() {
    let service = Service::start().await;
    let delivered = service.place_and(&["pay", "ship", "deliver"]).await;
    for (step, _) in STEPS {
        for id in [&Uuid::now_v7().to_string(), &Uuid::nil().to_string(), "nope", "%00", "%FF", &"0".repeat(32)] {
            let path = format!("/orders/{id}/{step}");
            for tag in [r#""1-1""#, "*"] {
                let problem = service.client.post(&path).header("if-match", tag).await.problem(404, "");
                assert_eq!(problem["instance"], path.as_str());
            }
        }
        let path = format!("/orders/{}/{step}", id(&delivered));
        service.client.post(&path).header("if-match", r#""1-1""#).await.problem(412, "");
        service.client.post(&path).header("if-match", r#""4-1""#).await.problem(409, "invalid-transition");
    }
}

#[tokio::test]
async fn a_cancelled_order_remembers_the_reason_if_there_was_one() {
    let service = Service::start().await;
    let longest = "🍵".repeat(500);
    let given = [
        (r#"{"reason":"changed my mind"}"#.to_owned(), json!("changed my mind")),
        (r#"{"reason":"  \t spaces around \n"}"#.to_owned(), json!("spaces around")),
        (format!(r#"{{"reason":"{longest}"}}"#), json!(longest)),
        ("{}".to_owned(), Value::Null),
        (String::new(), Value::Null),
    ];
    for (body, reason) in given {
        let order = service.place().await;
        let path = format!("/orders/{}/cancel", id(&order));
        let answer = service.client.post(path).body("application/json", body.clone()).await.expect(200);
        assert_eq!(answer.json()["status"], "cancelled");
        assert_eq!(answer.json().get("reason"), None);
        let history = service.history(id(&order)).await;
        assert_eq!(history[1]["data"].get("cancel_reason").cloned().unwrap_or_default(), reason, "{body}");
        assert_eq!(history[1]["data"].get("cancel_reason").is_some(), !reason.is_null(), "{body}");
    }
    // No body needs no media type.
    let order = service.place().await;
    service.client.post(format!("/orders/{}/cancel", id(&order))).body("text/plain", "").await.expect(200);
}

#[tokio::test]
async fn a_reason_is_1_to_500_characters() {
    let service = Service::start().await;
    let order = service.place().await;
    let path = format!("/orders/{}/cancel", id(&order));
    let cancel = |body: &str| service.client.post(&path).body("application/json", body.to_owned());
    let too_long = format!(r#"{{"reason":"{}"}}"#, "🍵".repeat(501));
    for body in [
        r#"{"reason":null}"#,
        r#"{"reason":""}"#,
        r#"{"reason":" \n "}"#,
        r#"{"reason":7}"#,
        r#"{"reason":["late"]}"#,
        r#"{"reason":"a\u0000b"}"#,
        r#"{"reason":"a\nb"}"#,
        r#"{"reason":"\ud83c"}"#,
        r#"{"reason":"late","reason":"late"}"#,
        &too_long,
    ] {
        assert_eq!(cancel(body).await.pointers(), ["/reason"], "{body}");
    }
    assert_eq!(cancel(r#"{"why":"late"}"#).await.pointers(), ["/why"]);
    for body in ["null", "[]", r#""late""#, "7"] {
        assert_eq!(cancel(body).await.pointers(), [""], "{body}");
    }
    for body in ["{", " ", "late"] {
        cancel(body).await.problem(400, "");
    }
    service.client.post(&path).body("text/plain", "{}").await.problem(415, "");
    cancel(&" ".repeat(65_537)).await.problem(413, "");
    assert_eq!(service.read(id(&order)).await, order);
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_payments_at_once_one_is_taken() {
    let service = Service::start().await;
    let instances = [service.client.clone(), service.second_instance()];
    for if_match in [None, Some(r#""1-1""#)] {
        for _ in 0..8 {
            let order = service.place().await;
            let path = format!("/orders/{}/pay", id(&order));
            let answers = at_once((0..12_usize).map(|n| {
                let call = instances[n % 2].post(&path);
                if_match.iter().fold(call, |call, tag| call.header("if-match", tag))
            }))
            .await;
            assert_eq!(count(&answers, 200), 1, "{answers:?}");
            assert_eq!(count(&answers, if if_match.is_some() { 412 } else { 409 }), 11, "{answers:?}");
            let paid = answers.iter().find(|answer| answer.status == 200).map(Answer::json);
            assert_eq!(Some(service.read(id(&order)).await), paid);
            assert_eq!(service.history(id(&order)).await.len(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_is_never_both_cancelled_and_shipped() {
    let service = Service::start().await;
    for round in 0..20 {
        let order = service.place_and(&["pay"]).await;
        let mut steps = ["cancel", "ship"];
        // Each has the head start in half of the rounds.
        steps.rotate_left(round % 2);
        let answers = at_once(steps.map(|step| service.client.post(format!("/orders/{}/{step}", id(&order))))).await;
        assert_eq!((count(&answers, 200), count(&answers, 409)), (1, 1), "{answers:?}");
        let [taken, refused] = if answers[0].status == 200 { [0, 1] } else { [1, 0] };
        let now = service.read(id(&order)).await;
        assert_eq!(answers[taken].json(), now);
        assert_eq!(now["status"], if steps[taken] == "ship" { "shipped" } else { "cancelled" });
        answers[refused].clone().problem(409, "invalid-transition");
        assert_eq!(service.history(id(&order)).await.len(), 3);
    }
}

/// Payment and cancellation, on the other hand, may both succeed: one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn steps_at_once_are_taken_one_after_the_other() {
    let service = Service::start().await;
    for _ in 0..10 {
        let order = service.place().await;
        let steps = ["pay", "cancel", "ship", "deliver"];
        let answers = at_once(steps.map(|step| service.client.post(format!("/orders/{}/{step}", id(&order))))).await;
        let mut taken: Vec<Value> = answers.iter().filter(|answer| answer.status == 200).map(Answer::json).collect();
        assert_eq!(taken.len() + count(&answers, 409), 4, "{answers:?}");
        taken.sort_by_key(|order| order["version"].as_i64());
        let history = service.history(id(&order)).await;
        let told: Vec<&Value> = history[1..].iter().map(|event| &event["data"]["status"]).collect();
        assert_eq!(told, taken.iter().map(|order| &order["status"]).collect::<Vec<_>>());
        let versions: Vec<_> = history.iter().map(|event| event["data"]["version"].as_u64()).collect();
        assert_eq!(versions, (1..=history.len() as u64).map(Some).collect::<Vec<_>>());
        let now = service.read(id(&order)).await;
        assert_eq!(&now, taken.last().expect("payment or cancellation"));
    }
}
