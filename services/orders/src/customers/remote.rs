//! The users service, asked by one protocol or the other.

use std::collections::HashMap;

use chassis::remote::{self, BaseUrl, Limits, Remote, RemoteError};
use uuid::Uuid;

use super::{Customer, Lookup, grpc, http};

/// The users service.
#[derive(Debug, Clone)]
pub enum Users {
    /// Asked by HTTP.
    Http(remote::Http),
    /// Asked by gRPC.
    Grpc(remote::Grpc),
}

impl Users {
    /// The service at `url`, asked by HTTP.
    pub fn http(url: &BaseUrl, limits: Limits) -> Self {
        Self::Http(remote::Http::new("users", url, limits))
    }

    /// The service at `url`, asked by gRPC.
    pub fn grpc(url: &BaseUrl, limits: Limits) -> Self {
        Self::Grpc(remote::Grpc::new("users-grpc", url, limits))
    }

    /// The guard of the calls.
    pub(super) fn remote(&self) -> &Remote {
        match self {
            Self::Http(users) => users.remote(),
            Self::Grpc(users) => users.remote(),
        }
    }

    /// The user, if there is one.
    pub(super) async fn find_one(&self, id: Uuid) -> Result<Option<Customer>, RemoteError> {
        match self {
            Self::Http(users) => http::find_one(users, id).await,
            Self::Grpc(users) => grpc::find_one(users, id).await,
        }
    }

    /// Those of the users that exist.
    pub(super) async fn find_all(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Customer>, RemoteError> {
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        match (self, &*distinct) {
            (_, [id]) => Ok(self.find_one(*id).await?.map(|user| (user.id, user)).into_iter().collect()),
            (Self::Http(users), ids) => http::find_all(users, ids).await,
            (Self::Grpc(users), ids) => grpc::find_all(users, ids).await,
        }
    }

    /// What is known of each of these users, in the order given.
    pub(super) async fn find(&self, ids: &[Uuid]) -> Vec<Lookup> {
        match self.find_all(ids).await {
            Ok(found) => ids.iter().map(|id| found.get(id).cloned().into()).collect(),
            Err(error) => {
                let error = chassis::error::chain(&error);
                tracing::warn!(error, "orders are shown without their customers");
                ids.iter().map(|_| Lookup::Unavailable).collect()
            }
        }
    }
}
