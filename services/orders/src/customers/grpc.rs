//! Customers by gRPC: `users.v1.Users`, one or a batch.

use chassis::remote::{Grpc, RemoteError};
use tonic::Code;
use uuid::Uuid;

use crate::domain::Customer;
use proto::users_client::UsersClient;
use proto::{BatchGetUsersRequest, GetUserRequest, Status, User};

#[allow(clippy::all, clippy::doc_markdown, missing_docs, reason = "generated; the contract has the comments")]
mod proto {
    tonic::include_proto!("users.v1");
}

/// The user with this id.
pub(super) async fn find_one(users: &Grpc, id: Uuid) -> Result<Option<Customer>, RemoteError> {
    let found = users.call("users.v1.Users/GetUser", |channel, request| async move {
        let message = GetUserRequest { id: id.to_string() };
        UsersClient::new(channel).get_user(request.map(|()| message)).await
    });
    match found.await? {
        Ok(user) => Ok(Some(read(users, user)?)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(users.unexpected(&status)),
    }
}

/// The users among these who exist.
pub(super) async fn find_batch(users: &Grpc, ids: &[Uuid]) -> Result<Vec<Customer>, RemoteError> {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let answer = users.call("users.v1.Users/BatchGetUsers", |channel, request| {
        let message = BatchGetUsersRequest { ids: ids.clone() };
        async move { UsersClient::new(channel).batch_get_users(request.map(|()| message)).await }
    });
    let answer = answer.await?.map_err(|status| users.unexpected(&status))?;
    answer.users.into_iter().map(|user| read(users, user)).collect()
}

fn read(users: &Grpc, user: User) -> Result<Customer, RemoteError> {
    let id = user.id.parse().map_err(|error: uuid::Error| users.unreadable(error))?;
    let status = match user.status() {
        Status::Active => "active",
        Status::Deactivated => "deactivated",
        Status::Unspecified => return Err(users.unreadable(format!("{} is not a status", user.status))),
    };
    Ok(Customer { id, name: user.name, status: status.to_owned(), version: user.version })
}
