//! The gRPC interface for other services: `proto/users/v1/users.proto`, and the standard health and reflection services.

use chassis::auth::{Auth, Caller, Needs};
use chassis::grpc::health::{self, HealthService};
use chassis::grpc::{Method, answer, guard};
use chassis::http::path::parse_id;
use chassis::http::problem::Problem;
use shared_db::run;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::App;
use crate::db::users::{find_user, find_users};
use crate::domain;
use crate::error::Error;
use crate::routes::READ;
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
/// The names under which the health service answers.
const SERVICES: &[&str] = &["users.v1.Users"];

const GET_USER: Method = Method { name: "users.v1.Users/GetUser", needs: Needs::Own(READ) };
const BATCH_GET_USERS: Method = Method { name: "users.v1.Users/BatchGetUsers", needs: Needs::Own(READ) };
/// What each method asks of its callers.
pub const METHODS: [Method; 2] = [GET_USER, BATCH_GET_USERS];

/// The whole gRPC interface.
pub async fn routes(app: App) -> Routes {
    let auth = app.auth.clone();
    with_reflection(calls(app), &auth)
}

/// The calls, and the health service.
pub fn calls(app: App) -> Routes {
    let health = HealthService::server(app.health.clone(), SERVICES);
    let users = UsersServer::new(Service(app)).max_decoding_message_size(MAX_REQUEST);
    Routes::new(users).add_service(health)
}

/// The same routes, with reflection for the callers that `auth` admits.
pub fn with_reflection(routes: Routes, auth: &Auth) -> Routes {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(CONTRACT)
            .register_encoded_file_descriptor_set(health::FILE_DESCRIPTOR_SET)
    };
    let reflection_v1 = guard(reflection().build_v1().expect("protox compiled the descriptors"), auth.clone());
    // Many tools know only the older one.
    let reflection_v1alpha = reflection().build_v1alpha().expect("protox compiled the descriptors");
    let reflection_v1alpha = guard(reflection_v1alpha, auth.clone());
    routes.add_service(reflection_v1).add_service(reflection_v1alpha)
}

struct Service(App);

#[tonic::async_trait]
impl Users for Service {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let (metadata, _, GetUserRequest { id }) = request.into_parts();
        answer(&self.0.auth, GET_USER, metadata, |caller| Box::pin(self.find_one(caller, id))).await
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let (metadata, _, BatchGetUsersRequest { ids }) = request.into_parts();
        answer(&self.0.auth, BATCH_GET_USERS, metadata, |caller| Box::pin(self.find(caller, ids))).await
    }
}

impl Service {
    async fn find_one(&self, caller: Caller, id: String) -> Result<User, Error> {
        let id = read_id(&id)?;
        if !caller.may_touch(id) {
            return Err(Error::NotFound);
        }
        let found = run!(self.0.database, connection => find_user(connection, id)).await?;
        found.map(User::from).ok_or(Error::NotFound)
    }

    async fn find(&self, caller: Caller, ids: Vec<String>) -> Result<BatchGetUsersResponse, Error> {
        if ids.len() > MAX_IDS {
            return Err(Problem::bad_request(format!("`ids` may have {MAX_IDS} elements at most")).into());
        }
        let mut ids = ids.iter().map(|id| read_id(id)).collect::<Result<Vec<_>, _>>()?;
        ids.retain(|id| caller.may_touch(*id));
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
