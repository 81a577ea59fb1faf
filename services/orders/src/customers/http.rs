//! Customers by HTTP: `GET /users/{id}`, and `GET /users?id=…&id=…` for a page of orders.

use std::collections::HashMap;

use axum::http::StatusCode;
use chassis::remote::{Http, RemoteError};
use serde::Deserialize;
use uuid::Uuid;

use super::{BATCH, Customer};

/// What orders reads of a user; fields it does not know are none of its business.
#[derive(Deserialize)]
pub(super) struct User {
    id: Uuid,
    name: String,
    status: String,
    version: i64,
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<User>,
}

impl From<User> for Customer {
    fn from(User { id, name, status, version }: User) -> Self {
        Self { id, name, status, version }
    }
}

/// The user, if there is one.
pub(super) async fn find_one(users: &Http, id: Uuid) -> Result<Option<Customer>, RemoteError> {
    let answer = users.get(&format!("/users/{id}")).await?;
    match answer.status {
        StatusCode::OK => Ok(Some(answer.json::<User>()?.into())),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(answer.unexpected()),
    }
}

/// Those of the users that exist.
pub(super) async fn find_all(users: &Http, ids: &[Uuid]) -> Result<HashMap<Uuid, Customer>, RemoteError> {
    let mut found = HashMap::new();
    for batch in ids.chunks(BATCH) {
        let ids: Vec<String> = batch.iter().map(|id| format!("id={id}")).collect();
        let answer = users.get(&format!("/users?{}", ids.join("&"))).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unexpected());
        }
        found.extend(answer.json::<Page>()?.items.into_iter().map(|user| (user.id, user.into())));
    }
    Ok(found)
}
