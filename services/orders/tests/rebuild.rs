//! The command `orders rebuild`.

#[path = "http/dial.rs"]
mod dial;
#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "http/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use dev::postgres::ORDERS_ROLE;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, Row};
use uuid::Uuid;

use support::{Service, execute, id};

/// How `orders rebuild` ended, and what it wrote to standard output and to standard error.
fn run(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    // Where no file `.env` is.
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().env("ORDERS_DATABASE_URL", url).current_dir(folder.path());
    let output = command.arg("rebuild").args(arguments).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Rebuilds a service's orders, or only checks them: the exit code, and the JSON lines that were printed.
fn rebuild(service: &Service, check: bool) -> (Option<i32>, Vec<Value>) {
    let arguments = if check { &["--format", "json", "--check"][..] } else { &["--format", "json"] };
    let (code, lines, _) = run(&service.database.url_as(ORDERS_ROLE), arguments);
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")));
    (code, lines.collect())
}

fn sum(orders: usize, different: usize, repaired: usize) -> Value {
    json!({ "orders": orders, "different": different, "repaired": repaired })
}

/// Everything that is stored of all orders.
async fn snapshot(service: &Service) -> Vec<String> {
    let rows = "
        select 'order ' || (to_jsonb(o) - 'idempotency_key' - 'idempotency_hash')::text from orders o
        union all select 'item ' || to_jsonb(i)::text from order_items i
        union all select 'event ' || to_jsonb(e)::text from order_events e
        order by 1";
    let rows = service.database.owner().await.fetch_all(rows).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

/// An order of two lines.
async fn place_two_lines(service: &Service) -> String {
    let mut order = service.order();
    order["items"].as_array_mut().expect("items").push(json!({ "sku": "cup", "quantity": 1, "unit_price_minor": 900 }));
    let placed = service.client.post("/orders").json(&order).await.expect(201).json();
    id(&placed).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_what_their_events_say_are_left_alone() {
    let service = Service::start().await;
    assert_eq!(rebuild(&service, true), (Some(0), vec![sum(0, 0, 0)]));
    for steps in [&[][..], &["pay"], &["pay", "ship"], &["pay", "ship", "deliver"], &["cancel"], &["pay", "cancel"]] {
        service.place_and(steps).await;
    }
    let largest = json!({ "sku": "🍵".repeat(64), "quantity": 10_000, "unit_price_minor": 1_000_000_000 });
    let order = json!({ "user_id": service.user, "currency": "EUR", "items": vec![largest; 100] });
    let order = service.client.post("/orders").json(&order).await.expect(201).json();
    let cancel = service.client.post(format!("/orders/{}/cancel", id(&order))).json(&json!({ "reason": "too much 🍵" }));
    cancel.await.expect(200);

    let before = snapshot(&service).await;
    for check in [true, false] {
        assert_eq!(rebuild(&service, check), (Some(0), vec![sum(7, 0, 0)]));
        assert_eq!(snapshot(&service).await, before);
    }
}

/// Each is one thing gone wrong with an order's rows, and a word of the report on it.
const CORRUPTIONS: [(&str, &str); 16] = [
    ("update orders set status = 'delivered' where id = $1", "status"),
    ("update orders set total_minor = total_minor + 1 where id = $1", "total_minor"),
    ("update orders set currency = 'USD' where id = $1", "currency"),
    ("update orders set user_id = (select id from users where name = 'Bob') where id = $1", "user_id"),
    ("update orders set version = version + 1 where id = $1", "version"),
    ("update orders set placed_at = placed_at - interval '1 microsecond' where id = $1", "placed_at"),
    ("update orders set updated_at = updated_at + interval '1 microsecond' where id = $1", "updated_at"),
    ("update orders set status = 'placed', version = 1, updated_at = placed_at where id = $1", "status"),
    ("update order_items set quantity = quantity + 1 where order_id = $1 and line_no = 2", "items"),
    ("update order_items set sku = 'mug' where order_id = $1 and line_no = 1", "items"),
    ("update order_items set unit_price_minor = 0 where order_id = $1 and line_no = 1", "items"),
    ("update order_items set line_no = 3 - line_no + 10 where order_id = $1", "items"),
    ("insert into order_items values ($1, 3, 'cup', 1, 900)", "items"),
    ("delete from order_items where order_id = $1 and line_no = 1", "items"),
    ("delete from order_items where order_id = $1", "items"),
    ("with i as (delete from order_items where order_id = $1) delete from orders where id = $1", "missing"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_has_gone_wrong_is_reported_and_repaired() {
    let service = Service::start().await;
    service.add_user(Uuid::now_v7(), "Bob").await;
    let mut orders = Vec::new();
    for (_, word) in CORRUPTIONS {
        let order = place_two_lines(&service).await;
        service.step(&order, "pay").await;
        orders.push((order, word));
        service.place_and(&["pay"]).await;
    }
    let right = snapshot(&service).await;
    for ((order, _), (corruption, _)) in orders.iter().zip(CORRUPTIONS) {
        // The foreign key of the lines is checked at the statement's end.
        service.execute(&corruption.replace("$1", &format!("'{order}'"))).await;
    }
    let wrong = snapshot(&service).await;
    assert_ne!(wrong, right);

    let words: BTreeMap<String, &str> = orders.iter().cloned().collect();
    let assert_reported = |lines: &[Value], repaired: bool| {
        let reported: BTreeMap<String, &Value> =
            lines.iter().map(|line| (line["order_id"].as_str().unwrap_or_default().to_owned(), line)).collect();
        for (order, word) in &words {
            let line = reported.get(order).unwrap_or_else(|| panic!("{order} ({word}) is not among {lines:?}"));
            let differences = line["differences"].as_array().expect("differences");
            assert!(differences.iter().any(|text| text.as_str().is_some_and(|text| text.contains(word))), "{word}: {line}");
            assert_eq!(line["repaired"], repaired, "{line}");
        }
        assert_eq!(lines.len(), words.len());
    };
    let (all, different) = (2 * orders.len(), orders.len());
    let (code, mut lines) = rebuild(&service, true);
    assert_eq!((code, lines.pop()), (Some(1), Some(sum(all, different, 0))));
    assert_reported(&lines, false);
    assert_eq!(snapshot(&service).await, wrong, "a check changes nothing");

    let (code, mut lines) = rebuild(&service, false);
    assert_eq!((code, lines.pop()), (Some(0), Some(sum(all, different, different))));
    assert_reported(&lines, true);
    assert_eq!(snapshot(&service).await, right);
    assert_eq!(rebuild(&service, true), (Some(0), vec![sum(all, 0, 0)]));
}

/// A line's number is in its row and in its order's events, like all the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_a_wrong_number_is_reported_and_repaired() {
    let service = Service::start().await;
    let order = place_two_lines(&service).await;
    let right = snapshot(&service).await;
    service.execute(&format!("update order_items set line_no = 7 where order_id = '{order}' and line_no = 2")).await;
    let (code, lines) = rebuild(&service, true);
    assert_eq!((code, lines.last()), (Some(1), Some(&sum(1, 1, 0))), "{lines:?}");
    assert_eq!(rebuild(&service, false).0, Some(0));
    assert_eq!(snapshot(&service).await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_repaired_is_reported_and_the_rest_is_repaired() {
    let service = Service::start().await;
    let no_events = service.place().await;
    let gap = service.place_and(&["pay", "ship"]).await;
    let unreadable = service.place().await;
    let unknown_type = service.place_and(&["pay"]).await;
    let not_placed = service.place_and(&["pay"]).await;
    let impossible = service.place_and(&["pay"]).await;
    let repairable = service.place().await;
    let fine = service.place().await;
    for (order, corruption) in [
        (&no_events, "delete from order_events where order_id = $1"),
        (&gap, "delete from order_events where order_id = $1 and version = 2"),
        (&unreadable, "update order_events set data = data - 'items' where order_id = $1"),
        (&unknown_type, "update order_events set type = 'order.paid.v2' where order_id = $1 and version = 2"),
        (&not_placed, "delete from order_events where order_id = $1 and version = 1"),
        (&impossible, "update order_events set type = 'order.delivered.v1' where order_id = $1 and version = 2"),
        (&repairable, "update orders set total_minor = 0 where id = $1"),
    ] {
        service.execute(&corruption.replace("$1", &format!("'{}'", id(order)))).await;
    }
    let before = snapshot(&service).await;
    let (code, mut lines) = rebuild(&service, true);
    assert_eq!((code, lines.pop(), lines.len()), (Some(1), Some(sum(8, 7, 0)), 7));

    let (code, mut lines) = rebuild(&service, false);
    assert_eq!((code, lines.pop(), lines.len()), (Some(1), Some(sum(8, 7, 1)), 7));
    for line in &lines {
        let order = line["order_id"].as_str().expect("an id");
        assert_ne!(order, id(&fine));
        assert_eq!(line["repaired"], order == id(&repairable), "{line}");
        assert!(line["differences"][0].as_str().is_some_and(|text| !text.is_empty()), "{line}");
    }
    // What cannot be repaired was left as it was.
    let after = snapshot(&service).await;
    assert_eq!(before.iter().filter(|row| !after.contains(row)).count(), 1);
    assert_eq!(service.read(id(&repairable)).await, repairable);
    let (code, mut lines) = rebuild(&service, true);
    assert_eq!((code, lines.pop()), (Some(1), Some(sum(8, 6, 0))));
}

/// What is over concerns its user no more; what is open would break the rule of the two services.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_deactivated_user_an_order_that_is_over_is_put_back_and_an_open_one_is_not() {
    let service = Service::start().await;
    let delivered = service.place_and(&["pay", "ship", "deliver"]).await;
    let cancelled = service.place_and(&["cancel"]).await;
    let shipped = service.place_and(&["pay", "ship"]).await;
    service.execute("delete from order_items").await;
    service.execute("delete from orders").await;
    service.set_user_status(service.user, "deactivated").await;

    let (code, mut lines) = rebuild(&service, false);
    assert_eq!((code, lines.pop()), (Some(1), Some(sum(3, 3, 2))));
    let repaired: BTreeMap<_, _> =
        lines.iter().map(|line| (line["order_id"].as_str(), line["repaired"].as_bool())).collect();
    let expected = [(&delivered, true), (&cancelled, true), (&shipped, false)];
    assert_eq!(repaired, expected.map(|(order, done)| (Some(id(order)), Some(done))).into());
    for order in [delivered, cancelled] {
        let now = service.read(id(&order)).await;
        assert_eq!((&now["status"], &now["items"]), (&order["status"], &order["items"]));
    }
    service.client.get(format!("/orders/{}", id(&shipped))).await.expect(404);

    service.set_user_status(service.user, "active").await;
    assert_eq!(rebuild(&service, false).0, Some(0));
    assert_eq!(service.read(id(&shipped)).await["status"], "shipped");
}

/// More than one transaction compares, and wherever one ends, every order is looked at once.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_orders_there_are_each_is_compared() {
    let service = Service::start().await;
    service.place_and(&["pay"]).await;
    let copies = "
        with copies as (
            select o.id as original, gen_random_uuid() as id from orders o cross join generate_series(1, 1234)
        ),
        rows as (
            insert into orders
            select c.id, user_id, status, currency, total_minor, placed_at, updated_at, version
            from copies c join orders o on o.id = original
        ),
        lines as (
            insert into order_items
            select c.id, line_no, sku, quantity, unit_price_minor from copies c join order_items on order_id = original
        )
        insert into order_events (order_id, version, type, data, occurred_at)
        select c.id, version, type, data, occurred_at from copies c join order_events on order_id = original";
    service.execute(copies).await;
    assert_eq!(rebuild(&service, true), (Some(0), vec![sum(1235, 0, 0)]));

    service.execute("update orders set total_minor = 0").await;
    service.execute("delete from order_items where order_id in (select id from orders order by id desc limit 300)").await;
    service.execute("delete from orders where id not in (select order_id from order_items)").await;
    let (code, mut lines) = rebuild(&service, false);
    assert_eq!((code, lines.pop()), (Some(0), Some(sum(1235, 1235, 1235))));
    let mut reported: Vec<&str> = lines.iter().filter_map(|line| line["order_id"].as_str()).collect();
    assert!(reported.is_sorted());
    reported.dedup();
    assert_eq!(reported.len(), 1235);
    assert_eq!(rebuild(&service, true), (Some(0), vec![sum(1235, 0, 0)]));
}

/// Requests go on meanwhile: what they are about to change is no difference, and what they have changed is not undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rebuild_under_load_finds_nothing_wrong_and_undoes_nothing() {
    let service = Service::start().await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (client, order) = (service.client.clone(), service.order());
            tokio::spawn(async move {
                let mut last = Vec::new();
                for _ in 0..30 {
                    let order = client.post("/orders").json(&order).await.expect(201).json();
                    client.post(format!("/orders/{}/pay", id(&order))).await.expect(200);
                    last.push(client.post(format!("/orders/{}/ship", id(&order))).await.expect(200).json());
                }
                last
            })
        })
        .collect();
    let mut runs = 0;
    while runs < 4 || writers.iter().any(|writer| !writer.is_finished()) {
        let (code, lines) = tokio::task::block_in_place(|| rebuild(&service, runs % 2 == 0));
        assert_eq!((code, lines.len()), (Some(0), 1), "{lines:?}");
        runs += 1;
    }
    for writer in writers {
        for order in writer.await.expect("its orders") {
            assert_eq!(service.read(id(&order)).await, order);
        }
    }
}

/// A payment commits between the comparison and the repair: the repair waits for it and then reads the events again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repair_does_not_undo_a_step_that_is_taken_meanwhile() {
    let service = Service::start().await;
    let placed = service.place().await;
    service.execute("update orders set total_minor = 7").await;
    let mut owner = service.database.owner().await;
    let mut payment = owner.begin().await.expect("a transaction");
    let statements = "
        update orders set status = 'paid', version = 2, updated_at = now();
        insert into order_events (order_id, version, type, data, occurred_at)
        select order_id, 2, 'order.paid.v1', data, now() from order_events";
    execute(&mut payment, statements).await;
    let url = service.database.url_as(ORDERS_ROLE);
    let repair = tokio::task::spawn_blocking(move || run(&url, &[]));
    service.until_blocked("orders rebuild", &repair).await;
    payment.commit().await.expect("committed");
    let (code, report, _) = repair.await.expect("its end");
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(rebuild(&service, true), (Some(0), vec![sum(1, 0, 0)]));
    let now = service.read(id(&placed)).await;
    assert_eq!((&now["status"], &now["version"], &now["total_minor"]), (&json!("paid"), &json!(2), &json!(700)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_for_people_names_the_order_and_what_is_wrong() {
    let service = Service::start().await;
    let order = service.place().await;
    service.execute("update orders set status = 'paid', total_minor = 7").await;
    let url = service.database.url_as(ORDERS_ROLE);
    let report = |arguments: &[&str]| {
        let (code, report, _) = run(&url, arguments);
        (code, report)
    };
    let line = format!("order {}: status is paid, by its events placed; total_minor is 7, by its events 700", id(&order));
    let found = "1 orders, 1 different from their events";
    assert_eq!(report(&["--check"]), (Some(1), format!("{line}\n{found}, 0 repaired\n")));
    assert_eq!(report(&[]), (Some(0), format!("{line} – repaired\n{found}, 1 repaired\n")));
}

#[test]
fn a_rebuild_that_cannot_be_done_ends_with_2() {
    for url in ["postgres://orders_svc:secret@127.0.0.1:1/none", "mysql://orders_svc:secret@127.0.0.1/none"] {
        let (code, report, said) = run(url, &["--check"]);
        assert_eq!((code, report.as_str()), (Some(2), ""), "{url}");
        assert!(said.starts_with("error: ") && !said.contains("secret"), "{said}");
    }
    assert_eq!(run("postgres://orders_svc@127.0.0.1:1/none", &["--format", "xml"]).0, Some(2));
}
