//! Customers by HTTP: `GET /users/{id}`, and `GET /users?id=…&id=…` for a page of orders.

use std::collections::HashMap;

use axum::http::StatusCode;
use chassis::remote::{Remote, RemoteError};
use serde::Deserialize;
use uuid::Uuid;

use super::{Customer, Lookup};

/// Users that one call may ask for.
const BATCH: usize = 100;

/// The users service.
#[derive(Debug, Clone)]
pub(super) struct HttpCustomers(Remote);

/// What orders reads of a user; fields it does not know are none of its business.
#[derive(Deserialize)]
struct User {
    id: Uuid,
    name: String,
    status: String,
    version: i64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<User>,
}

impl From<User> for Customer {
    fn from(User { id, name, status, version }: User) -> Self {
        Self { id, name, status, version }
    }
}

impl HttpCustomers {
    pub(super) fn new(remote: Remote) -> Self {
        Self(remote)
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.0
    }

    /// The user, if there is one.
    pub(super) async fn find_one(&self, id: Uuid) -> Result<Option<Customer>, RemoteError> {
        let answer = self.0.get(&format!("/users/{id}")).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.json::<User>()?.into())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.unexpected()),
        }
    }

    /// What is known of each of these users, in the order given.
    pub(super) async fn find(&self, ids: &[Uuid]) -> Vec<Lookup> {
        match self.find_all(ids).await {
            Ok(found) => ids.iter().map(|id| found.get(id).cloned().into()).collect(),
            Err(error) => {
                let error = chassis::request::chain(&error);
                tracing::warn!(error, "orders are shown without their customers");
                ids.iter().map(|_| Lookup::Unavailable).collect()
            }
        }
    }

    /// Those of the users that exist.
    pub(super) async fn find_all(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Customer>, RemoteError> {
        if let [id] = ids {
            return Ok(self.find_one(*id).await?.map(|user| (user.id, user)).into_iter().collect());
        }
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut found = HashMap::new();
        for batch in distinct.chunks(BATCH) {
            let ids: Vec<String> = batch.iter().map(|id| format!("id={id}")).collect();
            let answer = self.0.get(&format!("/users?{}", ids.join("&"))).await?;
            if answer.status != StatusCode::OK {
                return Err(answer.unexpected());
            }
            found.extend(answer.json::<Page>()?.items.into_iter().map(|user| (user.id, user.into())));
        }
        Ok(found)
    }
}
