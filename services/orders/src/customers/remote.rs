//! The users service, called by HTTP or by gRPC.

use std::collections::HashMap;

use chassis::remote::{self, BaseUrl, Limits, Remote, RemoteError, ServiceToken};
use chassis::throttle;
use uuid::Uuid;

use super::{grpc, http};
use crate::domain::{Customer, Lookup};

/// How many users one call may ask for.
const BATCH: usize = 100;

/// The users service.
#[derive(Debug, Clone)]
pub enum Users {
    /// Called by HTTP.
    Http(remote::Http),
    /// Called by gRPC.
    Grpc(remote::Grpc),
}

impl Users {
    /// The service at `url`, called by HTTP.
    pub fn http(url: &BaseUrl, limits: Limits) -> Self {
        Self::Http(remote::Http::new("users", url, limits))
    }

    /// The service at `url`, called by gRPC.
    pub fn grpc(url: &BaseUrl, limits: Limits) -> Self {
        Self::Grpc(remote::Grpc::new("users-grpc", url, limits))
    }

    /// Shows this token.
    #[must_use]
    pub fn showing(self, token: ServiceToken) -> Self {
        match self {
            Self::Http(users) => Self::Http(users.showing(token)),
            Self::Grpc(users) => Self::Grpc(users.showing(token)),
        }
    }

    /// The circuit breaker and the retries around the calls.
    pub(super) fn remote(&self) -> &Remote {
        match self {
            Self::Http(users) => users.remote(),
            Self::Grpc(users) => users.remote(),
        }
    }

    /// The user with this id.
    pub(super) async fn find_one(&self, id: Uuid) -> Result<Option<Customer>, RemoteError> {
        match self {
            Self::Http(users) => http::find_one(users, id).await,
            Self::Grpc(users) => grpc::find_one(users, id).await,
        }
    }

    /// The users among these who exist, by id.
    pub(super) async fn find_all(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Customer>, RemoteError> {
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if let [id] = *distinct {
            return Ok(self.find_one(id).await?.map(|user| (user.id, user)).into_iter().collect());
        }
        let mut found = HashMap::new();
        for batch in distinct.chunks(BATCH) {
            let users = match self {
                Self::Http(users) => http::find_batch(users, batch).await?,
                Self::Grpc(users) => grpc::find_batch(users, batch).await?,
            };
            found.extend(users.into_iter().map(|user| (user.id, user)));
        }
        Ok(found)
    }

    /// What is known about each of these users, in the order of `ids`.
    pub(super) async fn find(&self, ids: &[Uuid]) -> Vec<Lookup> {
        match self.find_all(ids).await {
            Ok(found) => ids.iter().map(|id| found.get(id).cloned().into()).collect(),
            Err(error) => {
                let error = chassis::error::chain(&error);
                if let Some(omitted) = throttle::line(&error) {
                    tracing::warn!(error, omitted, "users does not answer: orders are shown without their customers");
                }
                ids.iter().map(|_| Lookup::Unavailable).collect()
            }
        }
    }
}
