//! The gRPC interface for other services: `proto/users/v1/users.proto`, and the standard health and reflection services.

use std::time::Duration;

use chassis::grpc::answer;
use chassis::http::path::parse_id;
use chassis::http::problem::Problem;
use shared_db::{check_schema, run};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;
use uuid::Uuid;

use crate::App;
use crate::db::users::{find_user, find_users};
use crate::domain;
use crate::error::Error;
use proto::users_server::{Users, UsersServer};
use proto::{BatchGetUsersRequest, BatchGetUsersResponse, GetUserRequest, User};

#[allow(clippy::all, clippy::doc_markdown, missing_docs, reason = "generated; the contract has the comments")]
mod proto {
    tonic::include_proto!("users.v1");
}

/// The contract, for reflection.
const CONTRACT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/users.v1.bin"));
/// The largest request read, in bytes: a hundred ids are a tenth of it.
const MAX_REQUEST: usize = 64 * 1024;
/// The most users in one call.
const MAX_IDS: usize = 100;
/// How often the health service's status is renewed.
const HEALTH: Duration = Duration::from_secs(1);

/// The whole gRPC interface.
pub async fn routes(app: App) -> Routes {
    let (reporter, health) = tonic_health::server::health_reporter();
    // The status is set before the first call.
    reporter.set_not_serving::<UsersServer<Service>>().await;
    tokio::spawn(report_health(reporter, app.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(CONTRACT)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("protox compiled the descriptors");
    let users = UsersServer::new(Service(app)).max_decoding_message_size(MAX_REQUEST);
    Routes::new(users).add_service(health).add_service(reflection)
}

/// Sets the status of the health service to the one of `GET /health/ready`, for ever.
async fn report_health(reporter: HealthReporter, app: App) {
    loop {
        match check_schema(&app.database).await {
            Ok(()) => reporter.set_serving::<UsersServer<Service>>().await,
            // Errors are silent here: requests and readiness report them.
            Err(_) => reporter.set_not_serving::<UsersServer<Service>>().await,
        }
        tokio::time::sleep(HEALTH).await;
    }
}

struct Service(App);

#[tonic::async_trait]
impl Users for Service {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let (metadata, _, GetUserRequest { id }) = request.into_parts();
        answer("users.v1.Users/GetUser", metadata, Box::pin(self.find_one(&id))).await
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let (metadata, _, BatchGetUsersRequest { ids }) = request.into_parts();
        answer("users.v1.Users/BatchGetUsers", metadata, Box::pin(self.find(&ids))).await
    }
}

impl Service {
    async fn find_one(&self, id: &str) -> Result<User, Error> {
        let id = read_id(id)?;
        let found = run!(self.0.database, connection => find_user(connection, id)).await?;
        found.map(User::from).ok_or(Error::NotFound)
    }

    async fn find(&self, ids: &[String]) -> Result<BatchGetUsersResponse, Error> {
        if ids.len() > MAX_IDS {
            return Err(Problem::bad_request(format!("`ids` may have {MAX_IDS} elements at most")).into());
        }
        let ids = ids.iter().map(|id| read_id(id)).collect::<Result<Vec<_>, _>>()?;
        let found = run!(self.0.database, connection => find_users(connection, &ids)).await?;
        Ok(BatchGetUsersResponse { users: found.into_iter().map(User::from).collect() })
    }
}

fn read_id(text: &str) -> Result<Uuid, Problem> {
    parse_id(text).ok_or_else(|| Problem::bad_request("an id must be a UUID"))
}

impl From<domain::User> for User {
    fn from(user: domain::User) -> Self {
        let status = match user.status {
            domain::Status::Active => proto::Status::Active,
            domain::Status::Deactivated => proto::Status::Deactivated,
        };
        Self { id: user.id.to_string(), name: user.name, status: status.into(), version: user.version }
    }
}
