//! `POST /orders` with an `Idempotency-Key`.

use dev::http::{Answer, Call, Client};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Service, at_once, id};

const KEY: &str = "idempotency-key";

/// Places `order` under `key`.
fn place(client: &Client, key: &str, order: &Value) -> Call {
    client.post("/orders").header(KEY, key).json(order)
}

/// Whether the answer is marked as a repeat.
fn is_replay(answer: &Answer) -> bool {
    answer.headers.contains_key("idempotency-replayed") && answer.header("idempotency-replayed") == "true"
}

#[tokio::test]
async fn a_repeat_gets_the_same_order_back_as_it_is_now() {
    let service = Service::start().await;
    let first = place(&service.client, "a", &service.order()).await.expect(201);
    assert!(!is_replay(&first));
    let placed = first.json();

    let again = place(&service.client, "a", &service.order()).await.expect(201);
    assert!(is_replay(&again));
    assert_eq!(again.json(), placed);
    for name in ["location", "etag"] {
        assert_eq!(again.header(name), first.header(name));
    }

    let paid = service.step(id(&placed), "pay").await;
    let later = place(&service.second_instance(), "a", &service.order()).await.expect(201);
    assert!(is_replay(&later));
    assert_eq!((later.header("etag"), later.header("location")), (r#""2-1""#, first.header("location")));
    assert_eq!(later.json(), paid);
    assert_eq!(service.rows().await, [1, 1, 2]);
}

#[tokio::test]
async fn the_same_order_in_other_words_is_the_same_order() {
    let service = Service::start().await;
    let first = place(&service.client, "a", &service.order()).await.expect(201).json();
    let user = service.user;
    let upper = user.to_string().to_uppercase();
    let bodies = [
        service.order().to_string(),
        format!(
            r#" {{ "items" : [ {{ "unit_price_minor":350, "quantity":2, "sku":"tea" }} ],
                "user_id":"{user}", "currency":"EUR" }} "#
        ),
        format!(
            r#"{{"user_id":"{upper}","currency":"\u0045UR",
                "items":[{{"sku":"t\u0065a","quantity":2.0,"unit_price_minor":35e1}}]}}"#
        ),
    ];
    for body in bodies {
        let answer =
            service.client.post("/orders").header(KEY, "a").body("application/json", body.clone()).await.expect(201);
        assert!(is_replay(&answer), "{body}");
        assert_eq!(answer.json(), first, "{body}");
    }
    assert_eq!(service.rows().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_key_stands_for_one_order_whoever_sends_it() {
    let service = Service::start().await;
    let other_user = Uuid::now_v7();
    service.add_user(other_user, "Bob").await;
    let item = |sku, quantity, price| json!({ "sku": sku, "quantity": quantity, "unit_price_minor": price });
    let order = |items: &[Value]| json!({ "user_id": service.user, "currency": "EUR", "items": items });
    let two = order(&[item("tea", 1, 1), item("cup", 1, 1)]);
    let first = place(&service.client, "a", &two).await.expect(201).json();

    let mut of_another = two.clone();
    of_another["user_id"] = json!(other_user);
    let mut of_nobody = two.clone();
    of_nobody["user_id"] = json!(Uuid::nil());
    let mut in_dollars = two.clone();
    in_dollars["currency"] = json!("USD");
    let others = [
        of_another,
        of_nobody,
        in_dollars,
        order(&[item("cup", 1, 1), item("tea", 1, 1)]),
        order(&[item("tea", 1, 1)]),
        order(&[item("tea", 1, 1), item("cup", 1, 1), item("cup", 1, 1)]),
        order(&[item("tea", 2, 1), item("cup", 1, 1)]),
        order(&[item("tea", 1, 1), item("cup", 1, 2)]),
        order(&[item("Tea", 1, 1), item("cup", 1, 1)]),
        order(&[item("tea ", 1, 1), item("cup", 1, 1)]),
    ];
    for other in others {
        let answer = place(&service.client, "a", &other).await;
        assert!(!is_replay(&answer), "{other}");
        answer.problem(422, "idempotency-key-reused");
    }
    // Nor has any of them taken the key over.
    let again = place(&service.client, "a", &two).await.expect(201);
    assert_eq!((is_replay(&again), again.json()), (true, first));
    assert_eq!(service.rows().await, [1, 2, 1]);
}

#[tokio::test]
async fn without_a_key_or_with_another_one_each_request_makes_an_order() {
    let service = Service::start().await;
    let visible: String = ('!'..='~').collect();
    let longest = "k".repeat(255);
    let mut placed = vec![id(&service.place().await).to_owned(), id(&service.place().await).to_owned()];
    for key in ["a", "A", "aa", "\"a\"", "a,a", &visible, &longest, &longest[1..]] {
        let answer = place(&service.client, key, &service.order()).await.expect(201);
        assert!(!is_replay(&answer), "{key}");
        placed.push(id(&answer.json()).to_owned());
        let again = place(&service.client, key, &service.order()).await.expect(201);
        assert!(is_replay(&again), "{key}");
        assert_eq!(Some(&id(&again.json()).to_owned()), placed.last());
    }
    placed.sort_unstable();
    placed.dedup();
    assert_eq!(placed.len(), 10);
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_characters() {
    let service = Service::start().await;
    let order = service.order();
    for key in ["", " ", "a b", "a\tb", &"k".repeat(256), &"k".repeat(10_000)] {
        place(&service.client, key, &order).await.problem(400, "");
    }
    place(&service.client, "a", &order).header(KEY, "a").await.problem(400, "");
    place(&service.client, "a", &order).header(KEY, "").await.problem(400, "");
    assert_eq!(service.rows().await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_once_with_one_key_make_one_order() {
    let service = Service::start().await;
    let instances = [service.client.clone(), service.second_instance()];
    for round in 0..10 {
        let key = format!("round-{round}");
        let calls = (0..12_usize).map(|n| place(&instances[n % 2], &key, &service.order()));
        let answers = at_once(calls).await;
        let mut placed: Vec<String> = answers.iter().map(|answer| answer.clone().expect(201).json().to_string()).collect();
        placed.dedup();
        assert_eq!(placed.len(), 1, "{placed:?}");
        assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    }
    assert_eq!(service.rows().await, [10; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_orders_at_once_with_one_key_make_one_of_them() {
    let service = Service::start().await;
    let mut other = service.order();
    other["items"][0]["quantity"] = json!(3);
    let orders = [service.order(), other];
    for round in 0..10 {
        let key = format!("round-{round}");
        let answers = at_once((0..12_usize).map(|n| place(&service.client, &key, &orders[n % 2]))).await;
        let made: Vec<Value> = answers.iter().filter(|answer| answer.status == 201).map(Answer::json).collect();
        assert_eq!(made.len(), 6);
        assert!(made.iter().all(|order| order == &made[0]), "{made:?}");
        assert_eq!(answers.iter().filter(|answer| answer.status == 201 && !is_replay(answer)).count(), 1);
        for refused in answers.into_iter().filter(|answer| answer.status != 201) {
            refused.problem(422, "idempotency-key-reused");
        }
    }
    assert_eq!(service.rows().await, [10; 3]);
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_the_key() {
    let service = Service::start().await;
    let user = Uuid::now_v7();
    let order = service.order_of(user);
    place(&service.client, "a", &order).await.problem(422, "unknown-user");
    let mut invalid = order.clone();
    invalid["currency"] = json!("DEM");
    assert_eq!(place(&service.client, "a", &invalid).await.pointers(), ["/currency"]);
    service.add_user(user, "Bob").await;
    service.set_user_status(user, "deactivated").await;
    place(&service.client, "a", &order).await.problem(409, "user-deactivated");
    service.set_user_status(user, "active").await;

    // Another order than the refused ones, even.
    let answer = place(&service.client, "a", &service.order()).await.expect(201);
    assert!(!is_replay(&answer));
    assert_eq!(answer.json()["user_id"], json!(service.user));
}

#[tokio::test]
async fn a_repeat_works_whatever_has_happened_since() {
    let service = Service::start().await;
    let order = service.order();
    let placed = place(&service.client, "a", &order).await.expect(201).json();
    let cancelled = service.step(id(&placed), "cancel").await;
    let again = place(&service.client, "a", &order).await.expect(201);
    assert_eq!((is_replay(&again), again.json()), (true, cancelled.clone()));

    service.set_user_status(service.user, "deactivated").await;
    let again = place(&service.client, "a", &order).await.expect(201);
    assert_eq!((is_replay(&again), again.header("etag")), (true, r#""2-2""#));
    let mut expected = cancelled;
    expected["customer"]["status"] = json!("deactivated");
    assert_eq!(again.json(), expected);

    // A new order is another matter.
    place(&service.client, "b", &order).await.problem(409, "user-deactivated");
    assert_eq!(service.rows().await, [1, 1, 2]);
}
