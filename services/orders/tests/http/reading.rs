//! Reading orders: one, lists, and the count of open ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dev::http::Client;
use dev::postgres::ORDERS_ROLE;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::{Service, client, id, ids, next, pages, settings};

#[tokio::test]
async fn an_orders_tag_changes_with_the_order_and_with_its_customer() {
    let service = Service::start().await;
    let order = service.place().await;
    let path = format!("/orders/{}", id(&order));
    let tag = async || service.client.get(&path).await.expect(200).header("etag").to_owned();
    assert_eq!(tag().await, r#""1-1""#);
    service.step(id(&order), "pay").await;
    assert_eq!(tag().await, r#""2-1""#);
    service.rename_user(service.user, "Ada Lovelace").await;
    let answer = service.client.get(&path).await.expect(200);
    assert_eq!((answer.header("etag"), &answer.json()["customer"]["name"]), (r#""2-2""#, &json!("Ada Lovelace")));

    // The client has it: nothing is sent.
    for known in [r#""2-2""#, r#"W/"2-2""#, "*", r#""1-1", W/"2-2""#] {
        let answer = service.client.get(&path).header("if-none-match", known).await.expect(304);
        assert_eq!((answer.header("etag"), answer.body.len()), (r#""2-2""#, 0), "{known}");
    }
    let twice = service.client.get(&path).header("if-none-match", r#""7""#).header("if-none-match", r#""2-2""#).await;
    twice.expect(304);
    // The client has another: a change of either must not be missed.
    for known in [r#""1-1""#, r#""2-1""#, r#""1-2""#, r#""2""#, "2-2", r#""2-2"#, "", r#""1-1", "2-1""#] {
        let answer = service.client.get(&path).header("if-none-match", known).await.expect(200);
        assert_eq!(answer.json()["version"], 2, "{known}");
    }

    service.step(id(&order), "cancel").await;
    service.set_user_status(service.user, "deactivated").await;
    let answer = service.client.get(&path).header("if-none-match", r#""3-2""#).await.expect(200);
    assert_eq!((answer.header("etag"), &answer.json()["customer"]["status"]), (r#""3-3""#, &json!("deactivated")));
}

#[tokio::test]
async fn an_order_is_found_by_its_id_alone() {
    let service = Service::start().await;
    let order = service.place().await;
    let upper = id(&order).to_uppercase();
    assert_eq!(service.client.get(format!("/orders/{upper}")).await.expect(200).json(), order);

    let simple = id(&order).replace('-', "");
    for nothing in
        [&Uuid::now_v7().to_string(), &Uuid::nil().to_string(), "1", "nope", "%00", "%FF", "%F0%9F%8D%B5", &simple]
    {
        for path in [format!("/orders/{nothing}"), format!("/orders/{nothing}/events")] {
            let problem = service.client.get(&path).await.problem(404, "");
            assert_eq!(problem["instance"], path.as_str());
        }
    }
}

#[tokio::test]
async fn lists_are_newest_first_each_order_with_its_items_and_customer() {
    let service = Service::start().await;
    let bob = Uuid::now_v7();
    service.add_user(bob, "Bob").await;
    let mut by_state = Vec::new();
    for steps in [&[][..], &["pay"], &["pay", "ship"], &["pay", "ship", "deliver"], &["cancel"], &["pay", "cancel"]] {
        by_state.push(service.place_and(steps).await);
        let order = service.place_for(bob).await;
        let mut order = order;
        for step in steps {
            order = service.step(id(&order), step).await;
        }
        by_state.push(order);
    }
    by_state.reverse();

    let of = |filter: &dyn Fn(&Value) -> bool| by_state.iter().filter(|order| filter(order)).cloned().collect::<Vec<_>>();
    let ada = service.user;
    assert_eq!(pages(&service.client, "/orders").await, by_state);
    assert_eq!(pages(&service.client, &format!("/orders?user_id={bob}")).await, of(&|order| order["user_id"] == json!(bob)));
    for status in ["placed", "paid", "shipped", "delivered", "cancelled"] {
        let path = format!("/orders?status={status}");
        assert_eq!(pages(&service.client, &path).await, of(&|order| order["status"] == status));
        let path = format!("/orders?status={status}&user_id={}", ada.to_string().to_uppercase());
        let expected = of(&|order| order["status"] == status && order["user_id"] == json!(ada));
        assert_eq!(pages(&service.client, &path).await, expected);
        // Every page under the same filters.
        assert_eq!(pages(&service.client, &format!("{path}&limit=1")).await, expected);
    }
    for nobody in [Uuid::now_v7(), Uuid::nil()] {
        let answer = service.client.get(format!("/orders?user_id={nobody}")).await.expect(200);
        assert_eq!(answer.json(), json!({ "items": [], "next_cursor": null }));
        assert_eq!(next(&answer), None);
    }
}

#[tokio::test]
async fn pages_show_every_order_once_while_others_are_placed() {
    let service = Service::start().await;
    let mut placed = Vec::new();
    for _ in 0..23 {
        placed.push(service.place().await);
    }
    placed.reverse();
    for limit in [1, 7, 22, 23, 24, 100] {
        let all = pages(&service.client, &format!("/orders?limit={limit}")).await;
        assert_eq!(ids(&all), ids(&placed), "{limit}");
        let first = service.client.get(format!("/orders?limit={limit}")).await.expect(200);
        assert_eq!(first.json()["items"].as_array().map(Vec::len), Some(limit.min(23)));
        assert_eq!(next(&first).is_some(), limit < 23, "{limit}");
    }
    let usual = service.client.get("/orders").await.expect(200);
    assert_eq!(usual.json()["items"].as_array().map(Vec::len), Some(20));

    let mut seen = Vec::new();
    let mut path = Some("/orders?limit=5".to_owned());
    while let Some(page) = path {
        let answer = service.client.get(page).await.expect(200);
        seen.extend(ids(answer.json()["items"].as_array().expect("items")).into_iter().map(str::to_owned));
        path = next(&answer);
        service.place().await;
    }
    assert_eq!(seen, ids(&placed));
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 23);
}

#[tokio::test]
async fn a_bad_parameter_is_refused_rather_than_ignored() {
    let service = Service::start().await;
    let order = service.place_and(&["pay"]).await;
    service.place().await;
    let (user, order) = (service.user, format!("/orders/{}", id(&order)));
    let cursor = async |path: &str| {
        let answer = service.client.get(path).await.expect(200);
        answer.json()["next_cursor"].as_str().expect("another page").to_owned()
    };
    let of_orders = cursor("/orders?limit=1").await;
    let of_history = cursor(&format!("{order}/events?limit=1")).await;
    let feed = next(&service.client.get("/events").await.expect(200)).expect("a link");
    let (_, of_feed) = feed.split_once("after=").expect("a cursor");
    let of_users = chassis::http::cursor::encode("users", user.as_bytes());
    let changed = format!("{}{}", if of_orders.starts_with('A') { 'B' } else { 'A' }, &of_orders[1..]);

    let mut bad = Vec::new();
    for list in ["/orders".to_owned(), format!("{order}/events")] {
        for query in [
            "limit=0",
            "limit=101",
            "limit=-1",
            "limit=%2B1",
            "limit=1.0",
            "limit=ten",
            "limit=",
            "limit",
            "limit=99999999999999999999",
            "limit=1&limit=1",
            "cursor=",
            "cursor=nonsense",
            "cursor=AAAA",
            "cursor=%00",
            "cursor=%FF",
            "offset=1",
            "Limit=1",
        ] {
            bad.push(format!("{list}?{query}"));
        }
        for foreign in [of_feed, &of_users, &changed, &of_orders[..of_orders.len() - 1], &format!("{of_orders}A")] {
            bad.push(format!("{list}?cursor={foreign}"));
        }
    }
    bad.push(format!("/orders?cursor={of_history}"));
    bad.push(format!("/orders?cursor={of_orders}&cursor={of_orders}"));
    bad.push(format!("{order}/events?cursor={of_orders}"));
    bad.push(format!("/orders/{}/events?cursor={of_history}", Uuid::now_v7()));
    for query in [
        "status=",
        "status=open",
        "status=Placed",
        "status=placed,paid",
        "status=placed&status=paid",
        "status=%00",
        "user_id=",
        "user_id=1",
        "user_id=0198c0de000070008000000000000000",
        "id=0198c0de-0000-7000-8000-000000000000",
    ] {
        bad.push(format!("/orders?{query}"));
    }
    bad.push(format!("/orders?user_id={user}&user_id={user}"));
    bad.push(format!("{order}?limit=1"));
    bad.push(format!("{order}?%FF=%00"));
    for query in ["", "?user_id=", "?user_id=1", "?user=x", &format!("?user_id={user}&user_id={user}")] {
        bad.push(format!("/open-orders{query}"));
    }
    bad.push(format!("/open-orders?user_id={user}&status=paid"));
    for path in bad {
        let answer = service.client.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        answer.problem(400, "");
    }
    // The same cursors are right where they come from.
    service.client.get(format!("/orders?cursor={of_orders}")).await.expect(200);
    service.client.get(format!("{order}/events?cursor={of_history}")).await.expect(200);
}

#[tokio::test]
async fn open_orders_are_those_placed_paid_or_shipped() {
    let service = Service::start().await;
    let bob = Uuid::now_v7();
    service.add_user(bob, "Bob").await;
    service.place_for(bob).await;
    let count = async |user: Uuid| {
        let answer = service.client.get(format!("/open-orders?user_id={user}")).await.expect(200).json();
        assert_eq!(answer, json!({ "user_id": user, "open_count": answer["open_count"] }));
        answer["open_count"].as_u64()
    };
    assert_eq!(count(service.user).await, Some(0));
    assert_eq!(count(Uuid::now_v7()).await, Some(0));

    let order = service.place().await;
    for (step, open) in [("pay", 1), ("ship", 1), ("deliver", 0)] {
        assert_eq!(count(service.user).await, Some(1), "before {step}");
        service.step(id(&order), step).await;
        assert_eq!(count(service.user).await, Some(open), "after {step}");
    }
    service.place().await;
    service.place_and(&["pay"]).await;
    let cancelled = service.place_and(&["pay"]).await;
    assert_eq!(count(service.user).await, Some(3));
    service.step(id(&cancelled), "cancel").await;
    assert_eq!(count(service.user).await, Some(2));
    assert_eq!(count(bob).await, Some(1));
}

/// A request for an order as large as one can be: 64 characters of four bytes in each of a hundred lines.
fn largest(service: &Service) -> Value {
    let mut order = service.order();
    let line = json!({ "sku": "😀".repeat(64), "quantity": 10_000, "unit_price_minor": 1_000_000_000 });
    order["items"] = Value::Array(vec![line; 100]);
    order
}

/// A way to the service's database that counts the bytes which come from there: a client, and the count.
async fn counting(service: &Service) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = service.database.url_as(ORDERS_ROLE);
    let server = url.split(['@', '/']).nth(3).expect("an address").to_owned();
    let address = listener.local_addr().expect("an address").to_string();
    let (count, counted) = (Arc::<AtomicUsize>::default(), url.replace(&server, &address));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, count) = (TcpStream::connect(&server).await.expect("the server"), counter.clone());
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                    count.fetch_add(length, Ordering::SeqCst);
                    if to_client.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (client(&counted, &settings(1)), count)
}

#[tokio::test]
async fn a_page_has_at_most_a_mebibyte_and_the_list_goes_on_behind_it() {
    const MEBIBYTE: usize = 1024 * 1024;
    let service = Service::start().await;
    let order = largest(&service);
    let mut placed = Vec::new();
    for _ in 0..60 {
        placed.push(id(&service.client.post("/orders").json(&order).await.expect(201).json()).to_owned());
    }
    let (counting, count) = counting(&service).await;
    placed.reverse();
    let user = service.user;
    for list in ["/orders?limit=100", &format!("/orders?user_id={user}&limit=100"), "/orders?status=placed&limit=60"] {
        // What is not of the page is sent before.
        counting.get("/orders?limit=1").await.expect(200);
        let before = count.load(Ordering::SeqCst);
        let page = counting.get(list).await.expect(200);
        assert!((900_000..MEBIBYTE).contains(&page.body.len()), "{}", page.body.len());
        // The statement is prepared, too.
        let sent = count.load(Ordering::SeqCst) - before;
        assert!(sent < MEBIBYTE + 10_000, "{list}: {sent} bytes left Postgres");
        assert!(next(&page).expect("there is more").contains("limit="));
        assert_eq!(ids(&pages(&counting, list).await), placed, "{list}");
    }
    let last = format!("/orders?user_id={user}&status=placed&limit=29");
    assert_eq!(ids(&pages(&counting, &last).await), placed, "no page is cut");
}

#[tokio::test]
async fn a_page_of_a_history_has_at_most_a_mebibyte_too() {
    let service = Service::start().await;
    let order = service.client.post("/orders").json(&largest(&service)).await.expect(201).json();
    let more = "insert into order_events (order_id, version, type, data, occurred_at)
                select order_id, number, type, jsonb_set(data, '{version}', to_jsonb(number)), occurred_at
                from order_events, generate_series(2, 70) number";
    service.execute(more).await;
    let path = format!("/orders/{}/events?limit=100", id(&order));
    let (counting, count) = counting(&service).await;
    counting.get("/orders?limit=1").await.expect(200);
    let before = count.load(Ordering::SeqCst);
    let page = counting.get(&path).await.expect(200);
    assert!((900_000..1024 * 1024).contains(&page.body.len()), "{}", page.body.len());
    let sent = count.load(Ordering::SeqCst) - before;
    assert!(sent < 1024 * 1024 + 10_000, "{sent} bytes left Postgres");
    let events = pages(&counting, &path).await;
    let versions: Vec<_> = events.iter().map(|event| event["data"]["version"].as_i64().expect("a version")).collect();
    assert_eq!(versions, (1..=70).collect::<Vec<_>>());
}
