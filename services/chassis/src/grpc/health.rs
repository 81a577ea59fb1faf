//! The standard health service, <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>, over a service's
//! [`Health`]. The empty name stands for the whole server, and has the state of the named services.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::health::{Health, State};

pub use tonic_health::pb::FILE_DESCRIPTOR_SET;
pub use tonic_health::pb::health_server::HealthServer;

/// The health service of a server.
pub struct HealthService {
    health: Health,
    services: &'static [&'static str],
}

impl HealthService {
    /// Shows `health` under the names of `services`, and under the empty name.
    pub fn server(health: Health, services: &'static [&'static str]) -> HealthServer<Self> {
        HealthServer::new(Self { health, services })
    }

    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.services.contains(&name)
    }
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for HealthService {
    type WatchStream = Statuses;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("the server has no service of this name"));
        }
        let checked = self.health.check().await;
        Ok(Response::new(answer(if checked.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing })))
    }

    /// Sends the present status and each other one that follows. The stream ends when the server stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Statuses>, Status> {
        let known = self.knows(&request.get_ref().service);
        let news = News { known, state: self.health.watch(), sent: None };
        Ok(Response::new(Box::pin(stream::unfold(news, News::next))))
    }
}

/// What a watcher has been sent, and what it waits for.
struct News {
    known: bool,
    state: watch::Receiver<State>,
    sent: Option<ServingStatus>,
}

impl News {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let (status, stopped) = {
                let state = self.state.borrow_and_update();
                (status_of(&state, self.known), *state == State::Stopped)
            };
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Some((Ok(answer(status)), self));
            }
            if stopped || self.state.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn status_of(state: &State, known: bool) -> ServingStatus {
    match state {
        _ if !known => ServingStatus::ServiceUnknown,
        State::Ready => ServingStatus::Serving,
        State::Starting | State::NotReady(_) | State::Draining | State::Stopped => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
