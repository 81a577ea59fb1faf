//! A users service that does as it is told, by gRPC.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use chassis::remote::Limits;
use orders::customers::Users;
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, async_trait};

use proto::users_server::UsersServer;
use proto::{BatchGetUsersRequest, BatchGetUsersResponse, GetUserRequest, User};

#[allow(clippy::all, clippy::doc_markdown, missing_docs, reason = "generated")]
mod proto {
    tonic::include_proto!("users.v1");
}

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answers: every user exists and is called Ada.
    Answers,
    /// Fails this many requests, and then answers.
    FailsFirst(usize),
    /// Says that it cannot.
    Fails,
    /// Says nothing at all.
    Hangs,
    /// Answers something that its contract does not have.
    Babbles,
}

/// The service, and what it was asked.
#[derive(Clone)]
pub struct FakeUsers {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

struct Told {
    mode: Mode,
    seen: Vec<Seen>,
}

/// A request it received.
#[derive(Debug, Clone)]
pub struct Seen {
    pub ids: Vec<String>,
    pub request_id: String,
    pub traceparent: Option<String>,
}

impl FakeUsers {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let told = Arc::new(Mutex::new(Told { mode: Mode::Answers, seen: Vec::new() }));
        let users = Self { address, told };
        let routes = Routes::new(UsersServer::new(users.clone()));
        tokio::spawn(chassis::grpc::serve(listener, routes, std::future::pending()));
        users
    }

    /// The port to it.
    pub fn port(&self, limits: Limits) -> Users {
        Users::grpc(&self.address.into(), limits)
    }

    pub fn now(&self, mode: Mode) {
        self.told.lock().expect("unpoisoned").mode = mode;
    }

    /// What it was asked since the last look.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.told.lock().expect("unpoisoned").seen)
    }

    async fn answer(&self, metadata: &MetadataMap, ids: Vec<String>) -> Result<Vec<User>, Status> {
        assert!(metadata.contains_key("grpc-timeout"), "the deadline is passed on");
        let text = |name: &str| metadata.get(name).map(|value| value.to_str().expect("text").to_owned());
        let mode = {
            let mut told = self.told.lock().expect("unpoisoned");
            let request_id = text("x-request-id").unwrap_or_default();
            told.seen.push(Seen { ids: ids.clone(), request_id, traceparent: text("traceparent") });
            match told.mode {
                Mode::FailsFirst(0) => Mode::Answers,
                Mode::FailsFirst(times) => {
                    told.mode = Mode::FailsFirst(times - 1);
                    Mode::Fails
                }
                mode => mode,
            }
        };
        let user = |id| User { id, name: "Ada".to_owned(), status: proto::Status::Active.into(), version: 1 };
        match mode {
            Mode::Answers | Mode::FailsFirst(_) => Ok(ids.into_iter().map(user).collect()),
            Mode::Fails => Err(Status::unavailable("told so")),
            Mode::Hangs => std::future::pending().await,
            Mode::Babbles => Ok(ids.iter().map(|_| user("who knows".to_owned())).collect()),
        }
    }
}

#[async_trait]
impl proto::users_server::Users for FakeUsers {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let (metadata, _, GetUserRequest { id }) = request.into_parts();
        let mut users = self.answer(&metadata, vec![id]).await?;
        users.pop().map(Response::new).ok_or_else(|| Status::not_found("nobody"))
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let (metadata, _, BatchGetUsersRequest { ids }) = request.into_parts();
        Ok(Response::new(BatchGetUsersResponse { users: self.answer(&metadata, ids).await? }))
    }
}
