//! A minimal server for the services' jobs: axum, tokio-postgres and the same statements, nothing else.

mod orders;
mod users;

use std::fmt::Display;

use anyhow::{Context, Result};
use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bench::statements::{ORDER_CREATE, ORDER_PAGE, ORDER_READ, POINT_READ};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &'static str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let connections: usize = variable("DATABASE_MAX_CONNECTIONS")?.parse()?;
    let users = pool(variable("USERS_DATABASE_URL")?, &[POINT_READ], connections)?;
    let orders = pool(variable("ORDERS_DATABASE_URL")?, &[ORDER_READ, ORDER_PAGE, ORDER_CREATE], connections)?;
    let router = Router::new()
        .route("/users/{id}", get(users::get).with_state(users))
        .route("/orders/{id}", get(orders::get).with_state(orders.clone()))
        .route("/orders", get(orders::list).post(orders::place).with_state(orders))
        .route("/health/ready", get(async || ()));
    // The server writes each answer whole, so waiting for more bytes would only delay it.
    let listener = TcpListener::bind(variable("PEER_ADDR")?).await?.tap_io(|stream| drop(stream.set_nodelay(true)));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

type Pool = deadpool::managed::Pool<Connector>;

/// Opens connections, and prepares the statements on each.
struct Connector {
    url: String,
    statements: &'static [&'static str],
}

impl Manager for Connector {
    type Type = (Client, Vec<Statement>);
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Self::Type, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        let mut prepared = Vec::new();
        for statement in self.statements {
            prepared.push(client.prepare(statement).await?);
        }
        Ok((client, prepared))
    }

    async fn recycle(&self, _: &mut Self::Type, _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        Ok(())
    }
}

fn pool(url: String, statements: &'static [&'static str], connections: usize) -> Result<Pool> {
    Ok(Pool::builder(Connector { url, statements }).max_size(connections).build()?)
}

/// The rows of the pool's statement with this number.
async fn query(pool: &Pool, statement: usize, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
    let (client, statements) = &*pool.get().await?;
    Ok(client.query(&statements[statement], values).await?)
}

/// The answer to a request that failed.
struct Failure(String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error:#}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Larger than almost every answer, so it rarely grows.
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, value).expect("strings and numbers are JSON");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
