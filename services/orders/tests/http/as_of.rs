//! `GET /orders/{id}?as_of=`.

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use dev::http::Call;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, id, time};

fn as_of(service: &Service, id: &str, moment: &str) -> Call {
    service.client.get(format!("/orders/{id}?as_of={}", moment.replace('+', "%2B")))
}

fn micros(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[tokio::test]
async fn an_order_is_shown_as_every_answer_showed_it_then() {
    let service = Service::start().await;
    for steps in [&["pay", "ship", "deliver"][..], &["cancel"], &["pay", "cancel"]] {
        let mut answers = vec![service.place().await];
        let id = id(&answers[0]).to_owned();
        for step in steps {
            answers.push(service.step(&id, step).await);
        }
        let moment = TimeDelta::microseconds(1);
        let before_all = time(&answers[0]["placed_at"]) - moment;
        as_of(&service, &id, &micros(before_all)).await.problem(404, "");
        for (n, answered) in answers.iter().enumerate() {
            let since = time(&answered["updated_at"]);
            let until = answers.get(n + 1).map_or(since + TimeDelta::days(400), |next| time(&next["updated_at"]) - moment);
            for then in [since, until] {
                let shown = as_of(&service, &id, &micros(then)).await.expect(200);
                assert_eq!(&shown.json(), answered, "{then}");
                // Its customer is today's, so no tag could tell whether it is still the same.
                assert!(!shown.headers.contains_key("etag"));
            }
        }
        let latest = as_of(&service, &id, &micros(Utc::now())).header("if-none-match", "*").await.expect(200);
        assert_eq!(Some(&latest.json()), answers.last());
    }
}

#[tokio::test]
async fn the_customer_of_an_order_of_the_past_is_todays() {
    let service = Service::start().await;
    let placed = service.place().await;
    service.step(id(&placed), "cancel").await;
    service.rename_user(service.user, "Ada Lovelace").await;
    service.set_user_status(service.user, "deactivated").await;
    let mut expected = placed.clone();
    expected["customer"] = json!({ "id": service.user, "name": "Ada Lovelace", "status": "deactivated" });
    let then = placed["placed_at"].as_str().expect("a time");
    assert_eq!(as_of(&service, id(&placed), then).await.expect(200).json(), expected);
}

/// A row that has gone wrong shows in the order as it is, not in the order as it was: that is folded from its events.
#[tokio::test]
async fn an_order_of_the_past_is_folded_from_its_events() {
    let service = Service::start().await;
    let paid = service.place_and(&["pay"]).await;
    let wrong = "status = 'shipped', currency = 'USD', total_minor = 1, version = 9, updated_at = 'epoch'";
    service.execute(&format!("update orders set {wrong}; delete from order_items")).await;
    let then = paid["updated_at"].as_str().expect("a time");
    assert_eq!(as_of(&service, id(&paid), then).await.expect(200).json(), paid);
}

#[tokio::test]
async fn a_moment_is_any_time_of_rfc_3339() {
    let service = Service::start().await;
    let placed = service.place().await;
    let then = time(&placed["placed_at"]);
    let eastern = then.with_timezone(&FixedOffset::east_opt(19_800).expect("an offset"));
    let nanos = then.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let good: [(&str, u16); 9] = [
        (&eastern.to_rfc3339(), 200),
        (&then.with_timezone(&FixedOffset::west_opt(3_600).expect("an offset")).to_rfc3339(), 200),
        (&nanos, 200),
        ("9999-12-31T23:59:59Z", 200),
        ("9999-12-31T23:59:59.999999999-23:59", 200),
        ("0000-01-01T00:00:00Z", 404),
        ("0000-01-01T00:00:00+23:59", 404),
        ("1969-12-31T23:59:59.999999999Z", 404),
        ("2016-12-31T23:59:60Z", 404),
    ];
    for (moment, status) in good {
        let answer = as_of(&service, id(&placed), moment).await;
        assert_eq!(answer.status, status, "{moment}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.json(), placed, "{moment}");
        }
    }
    for moment in [
        "",
        "now",
        "yesterday",
        "0",
        "1767225600",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:01Z",
        "2026-01-01T00:00:00+2:00",
        "2026-01-01T00:00:00 02:00",
        "+12026-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z%00",
        "infinity",
    ] {
        let answer = as_of(&service, id(&placed), &moment.replace(' ', "%20")).await;
        assert_eq!(answer.status, 400, "{moment}: {}", answer.text());
        answer.problem(400, "");
    }
    let path = format!("/orders/{}?as_of=2030-01-01T00:00:00Z", id(&placed));
    service.client.get(format!("{path}&as_of=2030-01-01T00:00:00Z")).await.problem(400, "");
    service.client.get(format!("{path}&status=paid")).await.problem(400, "");
    for nothing in [Uuid::now_v7().to_string(), "nope".to_owned()] {
        as_of(&service, &nothing, "2030-01-01T00:00:00Z").await.problem(404, "");
    }
}

/// Of each order's own events, not of all.
#[tokio::test]
async fn orders_have_pasts_of_their_own() {
    let service = Service::start().await;
    let first = service.place().await;
    let second = service.place().await;
    let second = service.step(id(&second), "pay").await;
    let first = service.step(id(&first), "cancel").await;
    let then = |other: &Value| other["updated_at"].as_str().expect("a time").to_owned();
    let shown = as_of(&service, id(&first), &then(&second)).await.expect(200).json();
    assert_eq!((&shown["status"], &shown["version"]), (&json!("placed"), &json!(1)));
    let shown = as_of(&service, id(&second), &then(&first)).await.expect(200).json();
    assert_eq!(shown, second);
}
