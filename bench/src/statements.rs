//! The services' own statements, read from the query data that sqlx keeps beside their code: whoever tunes one of them
//! has not to remember that it is measured here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A statement of a service.
#[derive(Debug)]
pub struct Statement {
    sql: String,
    /// sqlx's names for the types of its parameters.
    types: Vec<String>,
}

impl Statement {
    /// What `users` reads a user with, by id.
    ///
    /// # Errors
    /// If there is no such statement any more.
    pub fn point_read() -> Result<Self> {
        find("users", &["select id, email, name", "where id = $"], &[])
    }

    /// What `orders` reads an order with its items and customer with, by id.
    ///
    /// # Errors
    /// If there is no such statement any more.
    pub fn order_read() -> Result<Self> {
        find("orders", &["customer_name", "where o.id = $"], &[])
    }

    /// What `orders` reads a page of a user's orders with: those below an id, how many rows, the user's id.
    ///
    /// # Errors
    /// If there is no such statement any more.
    pub fn order_page() -> Result<Self> {
        find("orders", &["customer_name", "o.user_id = $", "o.id < $"], &["o.status = $"])
    }

    /// What `orders` places an order with. The parameters are those of `orders::db::orders::insert_order`.
    ///
    /// # Errors
    /// If there is no such statement any more.
    pub fn order_create() -> Result<Self> {
        find("orders", &["insert into orders", "insert into order_items", "insert into order_events"], &[])
    }

    /// The statement with `switch` for each boolean parameter (the dials' switches, on when they stand at `local`) and
    /// `values` for the others.
    ///
    /// # Errors
    /// If it has not as many parameters.
    pub fn with(&self, switch: &str, values: &[&str]) -> Result<String> {
        let mut values = values.iter().copied();
        let mut filled = Vec::new();
        for r#type in &self.types {
            filled.push(if r#type == "Bool" { Some(switch) } else { values.next() });
        }
        let filled: Option<Vec<&str>> = filled.into_iter().collect();
        let filled = filled.filter(|_| values.next().is_none());
        let filled = filled.with_context(|| format!("this statement has other parameters by now: {}", self.sql))?;
        // In one pass: a value may itself hold a parameter.
        let mut parts = self.sql.split('$');
        let mut sql = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let value = part[..digits].parse::<usize>().ok().and_then(|n| filled.get(n.checked_sub(1)?));
            sql += value.with_context(|| format!("there is no parameter ${part}"))?;
            sql += &part[digits..];
        }
        Ok(sql)
    }
}

#[derive(Deserialize)]
struct QueryData {
    query: String,
    describe: Description,
}

#[derive(Deserialize)]
struct Description {
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "Left")]
    types: Vec<serde_json::Value>,
}

/// The one statement of a service that has all `parts` in it, and none of `others`.
fn find(service: &str, parts: &[&str], others: &[&str]) -> Result<Statement> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services").join(service).join(".sqlx");
    let unreadable = || format!("the query data in {} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(unreadable)? {
        let text = fs::read_to_string(entry.with_context(unreadable)?.path()).with_context(unreadable)?;
        let QueryData { query, describe } = serde_json::from_str(&text).with_context(unreadable)?;
        if parts.iter().all(|part| query.contains(part)) && !others.iter().any(|other| query.contains(other)) {
            let types = describe.parameters.types.iter().map(|name| name.as_str().unwrap_or_default().to_owned());
            found.push(Statement { sql: query, types: types.collect() });
        }
    }
    ensure!(
        found.len() == 1,
        "{} statements of {service} contain {parts:?}, instead of one: say in bench/src/statements.rs which one is meant",
        found.len()
    );
    Ok(found.remove(0))
}
