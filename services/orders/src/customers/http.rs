//! Customers by HTTP: `GET /users/{id}`, and `GET /users?id=…&id=…` for a page of orders.

use axum::http::StatusCode;
use chassis::remote::{Http, RemoteError};
use serde::Deserialize;
use uuid::Uuid;

use crate::domain::Customer;

#[derive(Deserialize)]
struct Page {
    items: Vec<Customer>,
}

/// The user with this id.
pub(super) async fn find_one(users: &Http, id: Uuid) -> Result<Option<Customer>, RemoteError> {
    let answer = users.get(&format!("/users/{id}")).await?;
    match answer.status {
        StatusCode::OK => Ok(Some(answer.json()?)),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(answer.unexpected()),
    }
}

/// The users among these who exist.
pub(super) async fn find_batch(users: &Http, ids: &[Uuid]) -> Result<Vec<Customer>, RemoteError> {
    let ids: Vec<String> = ids.iter().map(|id| format!("id={id}")).collect();
    let answer = users.get(&format!("/users?{}", ids.join("&"))).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.json::<Page>()?.items),
        _ => Err(answer.unexpected()),
    }
}
