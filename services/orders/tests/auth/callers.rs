//! What a user's token sees and changes: its own, and nothing else.

use serde_json::json;

use crate::support::{ANY, OWN, Pair, id, order_of};

#[tokio::test]
async fn lists_show_what_is_the_callers_own() {
    let pair = Pair::start().await;
    let (ada, eve) = (pair.register("ada").await, pair.register("eve").await);
    let (mine, theirs) = (pair.place(&ada).await, pair.place(&eve).await);
    let ids = |page: serde_json::Value| -> Vec<String> { page["items"].as_array().expect("items").iter().map(id).collect() };
    let users = pair.users_as(&ada, OWN);
    for (query, found) in [
        ("".to_owned(), true),
        ("?limit=1".to_owned(), true),
        ("?email=ADA@example.org".to_owned(), true),
        ("?email=eve@example.org".to_owned(), false),
        (format!("?id={ada}&id={eve}"), true),
        (format!("?id={eve}"), false),
    ] {
        let page = users.get(format!("/users{query}")).await.expect(200).json();
        assert_eq!(page["next_cursor"], json!(null), "{query}");
        assert_eq!(ids(page), if found { vec![ada.clone()] } else { vec![] }, "{query}");
    }
    let orders = pair.orders_as(&ada, OWN);
    for (query, found) in [
        ("".to_owned(), true),
        ("?status=placed".to_owned(), true),
        ("?status=paid".to_owned(), false),
        (format!("?user_id={ada}"), true),
        (format!("?user_id={eve}"), false),
    ] {
        let page = orders.get(format!("/orders{query}")).await.expect(200).json();
        assert_eq!(ids(page), if found { vec![mine.clone()] } else { vec![] }, "{query}");
    }
    let all = pair.orders_as("admin", ANY).get("/orders").await.expect(200).json();
    assert_eq!(ids(all), [theirs, mine]);
}

#[tokio::test]
async fn only_who_is_no_user_or_may_change_everybody_registers_users() {
    let pair = Pair::start().await;
    let ada = pair.register("ada").await;
    let new = |name: &str| json!({ "email": format!("{name}@example.org"), "name": name });
    let refused = pair.users_as(&ada, OWN).post("/users").json(&new("two")).await;
    assert!(refused.header("www-authenticate").contains("scope=\"users:write:any\""));
    refused.problem(403, "");
    pair.users_as("sign-up", "users:write").post("/users").json(&new("three")).await.expect(201);
    pair.users_as(&ada, "users:write:any").post("/users").json(&new("four")).await.expect(201);
}

#[tokio::test]
async fn each_subject_has_idempotency_keys_of_its_own() {
    let pair = Pair::start().await;
    let (ada, eve) = (pair.register("ada").await, pair.register("eve").await);
    let place = |subject: &str, scope: &str, user: &str| {
        pair.orders_as(subject, scope).post("/orders").header("idempotency-key", "one").json(&order_of(user))
    };
    let adas = id(&place(&ada, OWN, &ada).await.expect(201).json());
    let eves = id(&place(&eve, OWN, &eve).await.expect(201).json());
    assert_ne!(adas, eves);
    let again = place(&ada, OWN, &ada).await.expect(201);
    assert_eq!((again.header("idempotency-replayed"), id(&again.json())), ("true", adas.clone()));
    // Another one's body with one's own key is refused as for an unknown user, and the key stays hidden.
    place(&eve, OWN, &ada).await.problem(422, "unknown-user");
    place(&ada, OWN, &eve).await.problem(422, "unknown-user");
    // A service that places orders for both has keys of its own, too.
    let other = id(&place("till", ANY, &ada).await.expect(201).json());
    assert_ne!(other, adas);
    place("till", ANY, &eve).await.problem(422, "idempotency-key-reused");
    // A key that looks like another one's is none.
    let tricky = pair.orders_as("till", ANY).post("/orders").header("idempotency-key", format!("{ada}/one"));
    assert_ne!(id(&tricky.json(&order_of(&ada)).await.expect(201).json()), adas);
}
