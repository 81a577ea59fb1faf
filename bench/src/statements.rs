//! The services' own statements, read from the query data that sqlx keeps beside their code: whoever tunes one of them
//! has not to remember that it is measured here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What `users` reads a user with; `$1` is the id.
///
/// # Errors
/// If there is no such statement any more.
pub fn point_read() -> Result<String> {
    find("users", &["select id, email, name", "where id = $1"])
}

/// What `orders` reads an order with its items and customer with; `$1` is the id.
///
/// # Errors
/// If there is no such statement any more.
pub fn order_read() -> Result<String> {
    find("orders", &["customer_name", "where o.id = $1"])
}

/// What `orders` reads a page of a user's orders with: those below the id `$1`, `$2` rows, of the user `$3`.
///
/// # Errors
/// If there is no such statement any more.
pub fn order_page() -> Result<String> {
    find("orders", &["customer_name", "where o.user_id = $3 and o.id < $1"])
}

/// What `orders` places an order with. The parameters are those of `orders::db::orders::insert_order`.
///
/// # Errors
/// If there is no such statement any more.
pub fn order_create() -> Result<String> {
    find("orders", &["insert into orders", "insert into order_items", "insert into order_events"])
}

#[derive(Deserialize)]
struct QueryData {
    query: String,
}

/// The one statement of a service that has all these parts in it.
fn find(service: &str, parts: &[&str]) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services").join(service).join(".sqlx");
    let unreadable = || format!("the query data in {} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(unreadable)? {
        let text = fs::read_to_string(entry.with_context(unreadable)?.path()).with_context(unreadable)?;
        let QueryData { query } = serde_json::from_str(&text).with_context(unreadable)?;
        if parts.iter().all(|part| query.contains(part)) {
            found.push(query);
        }
    }
    ensure!(
        found.len() == 1,
        "{} statements of {service} contain {parts:?}, instead of one: say in bench/src/statements.rs which one is meant",
        found.len()
    );
    Ok(found.remove(0))
}
