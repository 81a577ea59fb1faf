//! Every route of the table, for every kind of caller.

use axum::http::Method;
use chassis::auth::access::COMMON;
use chassis::auth::{Access, Needs};
use dev::http::{Answer, Call, Client};
use serde_json::{Value, json};

use crate::support::{ANY, OWN, Pair, order_of};

/// Both services' own routes, and where each is.
fn tables(pair: &Pair) -> Vec<(&Client, &'static Access)> {
    let of = |client, table: &'static [Access]| table.iter().map(move |access| (client, access));
    of(&pair.users, users::ACCESS).chain(of(&pair.orders, orders::ACCESS)).collect()
}

/// A good request of the route about this user's things.
fn request(client: &Client, access: &Access, user: &str, order: &str) -> Call {
    let id = if access.path.starts_with("/users") { user } else { order };
    let mut path = access.path.replace("{id}", id);
    if path == "/open-orders" {
        path = format!("{path}?user_id={user}");
    }
    let method: Method = access.method.parse().expect("a method");
    let call = client.call(method, path);
    match (access.method, access.path) {
        ("POST", "/users") => call.json(&json!({ "email": "new@example.org", "name": "New" })),
        ("POST", "/orders") => call.json(&order_of(user)),
        ("PATCH", _) => call.json(&json!({ "name": "Other" })),
        _ => call,
    }
}

/// The id with its first digit, which is 0, as an escape.
fn encoded(id: &str) -> String {
    id.replacen('0', "%30", 1)
}

fn check_forbidden(answer: Answer, scope: &str) {
    let challenge = answer.header("www-authenticate").to_owned();
    assert_eq!(challenge, format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""));
    let problem = answer.problem(403, "");
    assert!(problem["detail"].as_str().expect("text").contains(scope), "{problem}");
}

#[tokio::test]
async fn every_route_needs_its_scope() {
    let pair = Pair::start().await;
    let user = pair.register("ada").await;
    let order = pair.place(&user).await;
    let mut scopes = Vec::new();
    for (client, access) in tables(&pair) {
        let scope = access.needs.scope().expect("a scope");
        let answer = request(client, access, &user, &order).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{access:?}");
        assert!(answer.problem(401, "")["detail"].as_str().expect("text").contains(scope), "{access:?}");

        let others: Vec<&str> = OWN.split(' ').filter(|other| *other != scope).collect();
        let without = client.bearing(pair.token(&user, &others.join(" ")));
        check_forbidden(request(&without, access, &user, &order).await, scope);
        // Whatever else is wrong with the request.
        let wrong = request(&without, access, &user, &order).header("if-match", "\"9\"").header("content-encoding", "x");
        check_forbidden(wrong.await, scope);
        scopes.push(scope);
    }
    scopes.sort_unstable();
    scopes.dedup();
    assert_eq!(scopes, ["events:read", "orders:read", "orders:write", "users:read", "users:write"]);
}

#[tokio::test]
async fn what_belongs_to_others_is_not_there() {
    let pair = Pair::start().await;
    let (ada, eve) = (pair.register("ada").await, pair.register("eve").await);
    let order = pair.place(&ada).await;
    let mut checked = 0;
    for (client, access) in tables(&pair) {
        let (eves, service) = (client.bearing(pair.token(&eve, OWN)), client.bearing(pair.token("a service", OWN)));
        let scope = access.needs.scope().expect("a scope");
        if matches!(access.needs, Needs::Own(_) | Needs::OwnId(_)) {
            // Who is no user has nothing of its own.
            check_forbidden(request(&service, access, &ada, &order).await, &format!("{scope}:any"));
        }
        let answer = || request(&eves, access, &ada, &order);
        match (access.needs, access.method, access.path) {
            (Needs::Scope(_), ..) => drop(answer().await.expect(200)),
            (Needs::New(_), ..) => check_forbidden(answer().await, &format!("{scope}:any")),
            (_, "POST", "/orders") => drop(answer().await.problem(422, "unknown-user")),
            (_, "GET", "/users") => assert_eq!(answer().await.expect(200).json()["items"][0]["id"], eve.as_str()),
            (_, "GET", "/orders") => assert_eq!(answer().await.expect(200).json()["items"], json!([])),
            _ => {
                let problem = answer().await.problem(404, "");
                // A precondition tells nothing, whether it holds or not.
                let preconditions = [("if-match", "\"1\""), ("if-match", "\"9\""), ("if-none-match", "*")];
                for (name, value) in preconditions {
                    assert_eq!(answer().header(name, value).await.problem(404, ""), problem, "{access:?} {name}");
                }
                // The same path, written in another way.
                request(&eves, access, &encoded(&ada), &encoded(&order)).await.problem(404, "");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 5 + 7);
    let eves = pair.orders_as(&eve, OWN);
    for moment in ["2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let other = eves.get(format!("/orders/{order}?as_of={moment}")).await.problem(404, "");
        let detail = other["detail"].as_str().expect("text");
        assert_eq!(detail, "there is no order with this id, or there was none at that time");
    }
    // Nothing has changed.
    let admin = pair.users_as("admin", ANY);
    assert_eq!(admin.get(format!("/users/{ada}")).await.expect(200).json()["version"], 1);
    let admin = pair.orders_as("admin", ANY);
    assert_eq!(admin.get(format!("/orders/{order}")).await.expect(200).json()["version"], 1);
}

#[tokio::test]
async fn everybodys_things_are_open_to_who_may_reach_them_and_ones_own_to_oneself() {
    for whose in ["admin", "own"] {
        let pair = Pair::start().await;
        let ada = pair.register("ada").await;
        let _eve = pair.register("eve").await;
        let orders = [pair.place(&ada).await, pair.place(&ada).await];
        let token = if whose == "own" { pair.token(&ada, OWN) } else { pair.token("admin", ANY) };
        for (client, access) in tables(&pair) {
            // The last one deactivates the user.
            if matches!(access.needs, Needs::New(_)) || access.method == "DELETE" {
                continue;
            }
            let order = if access.path.ends_with("cancel") { &orders[1] } else { &orders[0] };
            let answer = request(&client.bearing(&token), access, &ada, order).await;
            assert!(answer.status < 300, "{whose} {access:?}: {} {}", answer.status, answer.text());
            if access.method == "GET" {
                request(&client.bearing(&token), access, &encoded(&ada), &encoded(order)).await.expect(200);
            }
        }
    }
}

/// The order of the checks, as the contract has it: 401, 403, 404, 405, 415, 412.
#[tokio::test]
async fn of_several_faults_the_first_in_the_contracts_order_is_answered() {
    let pair = Pair::start().await;
    let ada = pair.register("ada").await;
    let order = pair.place(&ada).await;
    let (mine, other) = (pair.orders_as(&ada, OWN), pair.orders_as(&pair.register("eve").await, OWN));
    // Who is unknown does not learn which routes there are.
    for client in [&pair.users, &pair.orders] {
        client.get("/nothing").await.problem(401, "");
        client.call(Method::PUT, "/events").await.problem(401, "");
    }
    mine.get("/nothing").await.problem(404, "");
    mine.call(Method::PUT, "/events").await.problem(405, "");
    mine.bearing(pair.token(&ada, "x")).get("/nothing").await.problem(404, "");
    mine.get("/orders/no-uuid").await.problem(404, "");
    mine.bearing(pair.token(&ada, "x")).get("/orders/no-uuid").await.problem(403, "");
    let cancel = |client: &Client| client.post(format!("/orders/{order}/cancel")).header("if-match", "\"9\"");
    cancel(&other).await.problem(404, "");
    cancel(&mine).header("content-encoding", "gzip").await.problem(415, "");
    cancel(&mine).await.problem(412, "");
}

#[tokio::test]
async fn health_needs_no_token_and_the_documents_need_none_on_loopback() {
    let pair = Pair::start().await;
    for client in [&pair.users, &pair.orders] {
        for access in COMMON {
            let path = access.path.replace("/docs", "/docs/");
            client.get(path).await.expect(200);
        }
        client.call(Method::HEAD, "/health/live").await.expect(200);
    }
}

#[tokio::test]
async fn elsewhere_the_documents_need_a_token_of_any_scope() {
    let key = dev::issuer::SigningKey::eddsa("one");
    let file = crate::support::KeysFile::new(&[&key]);
    let path = file.path.to_str().expect("text");
    let options = [("auth", "jwt"), ("auth-jwks-file", path), ("auth-audience", crate::support::AUDIENCE)];
    let auth = crate::support::open_at("0.0.0.0:8080", &options).await.expect("keys");
    let (users, orders, _database) = crate::support::services(auth);
    let token = key.token(&crate::support::claims("anybody", ""));
    for client in [&users, &orders] {
        for path in ["/metrics", "/openapi.json", "/docs/"] {
            client.get(path).await.problem(401, "");
            client.bearing(&token).get(path).await.expect(200);
        }
        client.get("/health/ready").await.expect(200);
        client.get("/health/live").await.expect(200);
    }
}

#[tokio::test]
async fn the_documents_say_what_each_route_asks_of_its_callers() {
    let pair = Pair::start().await;
    for (client, table) in [(&pair.users, users::ACCESS), (&pair.orders, orders::ACCESS)] {
        let document = client.get("/openapi.json").await.expect(200).json();
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        let mut operations = 0;
        for access in table.iter().chain(&COMMON).filter(|access| document["paths"].get(access.path).is_some()) {
            let operation = &document["paths"][access.path][access.method.to_lowercase()];
            let security = if access.needs.scope().is_some() { json!([{ "token": [] }]) } else { json!([]) };
            assert_eq!(operation["security"], security, "{access:?}");
            let description = operation["description"].as_str().expect("a description");
            let scopes = ["users:read", "users:write", "orders:read", "orders:write", "events:read"];
            let named: Vec<_> =
                scopes.into_iter().filter(|scope| description.contains(&format!("scope `{scope}`"))).collect();
            assert_eq!(named, Vec::from_iter(access.needs.scope()), "{access:?}");
            let refused = |status: &str| operation["responses"][status] != Value::Null;
            assert_eq!((refused("401"), refused("403")), (access.needs.scope().is_some(), access.needs.scope().is_some()));
            operations += 1;
        }
        let paths = document["paths"].as_object().expect("paths").values();
        let all: usize = paths.map(|path| path.as_object().expect("operations").len()).sum();
        assert_eq!(operations, all);
    }
}

#[test]
fn the_table_of_the_documents_is_the_one_of_the_routers() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let (_, table) = page.split_once("| service | route | scope | whose |\n").expect("a table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|')).map(str::to_owned);
    let row = |service: &str, route: &str, needs: Needs| {
        let scope = match needs {
            Needs::Nothing => "–".to_owned(),
            Needs::Token => "any token".to_owned(),
            _ => format!("`{}`", needs.scope().expect("a scope")),
        };
        format!("| {service} | `{route}` | {scope} | {} |", needs.whose())
    };
    let http = |service, table: &[Access]| -> Vec<String> {
        table.iter().map(|access| row(service, &format!("{} {}", access.method, access.path), access.needs)).collect()
    };
    let grpc = users::grpc::METHODS.iter().map(|method| row("users", method.name, method.needs)).collect();
    let expected = [http("users", users::ACCESS), grpc, http("orders", orders::ACCESS), http("users, orders", &COMMON)];
    assert_eq!(rows.collect::<Vec<_>>(), expected.concat());
}
