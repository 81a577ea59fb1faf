//! Adds demo data through the services' own interface.

use anyhow::{Context, Result};
use dev::http::Client;
use serde_json::json;

/// Adds three users and their orders, unless there are users already.
pub async fn add_once(users: &Client, orders: &Client) -> Result<()> {
    let known = users.get("/users?limit=1").answered(200).await?;
    if known["items"].as_array().is_none_or(|items| !items.is_empty()) {
        return Ok(());
    }
    let mut ids = Vec::new();
    for (name, email) in [("Ada", "ada@example.org"), ("Grace", "grace@example.org"), ("Linus", "linus@example.org")] {
        let user = users.post("/users").json(&json!({ "email": email, "name": name })).answered(201).await?;
        ids.push(user["id"].clone());
    }
    let carts = [
        (&ids[0], "EUR", json!([{ "sku": "tea", "quantity": 2, "unit_price_minor": 350 }])),
        (&ids[0], "EUR", json!([{ "sku": "cup", "quantity": 1, "unit_price_minor": 1200 }])),
        (&ids[1], "USD", json!([{ "sku": "moth", "quantity": 1, "unit_price_minor": 1947 }])),
    ];
    let mut placed = Vec::new();
    for (user, currency, items) in carts {
        let order = json!({ "user_id": user, "currency": currency, "items": items });
        placed.push(orders.post("/orders").json(&order).answered(201).await?["id"].clone());
    }
    for (order, steps) in [(&placed[1], &["pay"][..]), (&placed[2], &["pay", "ship", "deliver"])] {
        let id = order.as_str().context("an order has an id")?;
        for step in steps {
            orders.post(format!("/orders/{id}/{step}")).answered(200).await?;
        }
    }
    Ok(())
}
