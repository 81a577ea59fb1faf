//! The users service as a library, so that tests can call its router without a port.

#![warn(missing_docs)]

mod config;
mod db;
pub mod domain;
mod error;
pub mod events;
pub mod grpc;
pub mod open_orders;
mod routes;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use chassis::auth::Auth;
use chassis::events::Wakeups;
use chassis::health::Health;
use chassis::telemetry::LogLevel;
use open_orders::OpenOrders;
use shared_db::{Database, check_schema, stay_warm, watch_standbys};
use tonic::service::Routes;

pub use config::{Command, Config};
pub use routes::{ACCESS, router, routers};

/// What the service answers at each of its addresses.
pub struct Interfaces {
    /// HTTP.
    pub http: Router,
    /// gRPC.
    pub grpc: Routes,
    /// `ADMIN_ADDR`.
    pub operators: Option<Routes>,
}

/// What handlers need. A clone counts one reference: each request makes several, and the processors wait for each other at
/// every count.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Clone)]
pub struct Parts {
    /// The service's database.
    pub database: Database,
    /// Whether the service can do its work.
    pub health: Health,
    /// Wakes the readers of the feed.
    pub wakeups: Wakeups,
    /// The port to orders.
    pub open_orders: OpenOrders,
    /// Who may call.
    pub auth: Auth,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// The service on `database`, for all callers.
    pub fn new(database: Database, open_orders: OpenOrders) -> Self {
        let checked = database.clone();
        let health = Health::new(Arc::new(move || {
            let database = checked.clone();
            Box::pin(async move { check_schema(&database).await.map_err(|error| error::Error::from(error).into()) })
        }));
        Self(Arc::new(Parts { database, health, wakeups: Wakeups::default(), open_orders, auth: Auth::off() }))
    }

    /// What the service answers. With `level`, operators have an address of their own.
    pub async fn interfaces(self, level: Option<LogLevel>) -> Interfaces {
        let Some(level) = level else {
            return Interfaces { http: router(self.clone()), grpc: grpc::routes(self).await, operators: None };
        };
        let (http, operators) = routers(self.clone(), level);
        let operators = grpc::with_reflection(Routes::from(operators), &Auth::off());
        Interfaces { http, grpc: grpc::calls(self), operators: Some(operators) }
    }

    /// Starts what runs beside the requests: checks of health and of the log, and upkeep.
    pub fn watch(&self) {
        chassis::metrics::recorder();
        tokio::spawn(chassis::metrics::upkeep());
        self.health.watch();
        tokio::spawn(stay_warm(self.database.clone()));
        tokio::spawn(watch_standbys(self.database.clone()));
        tokio::spawn(chassis::events::watch(self.clone()));
    }

    /// The service for the callers that `auth` admits.
    #[must_use]
    pub fn for_callers(self, auth: Auth) -> Self {
        let parts = Arc::unwrap_or_clone(self.0);
        Self(Arc::new(Parts { health: parts.health.and(auth.clone()), auth, ..parts }))
    }
}
