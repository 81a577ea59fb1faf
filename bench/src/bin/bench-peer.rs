//! A minimal server for the services' reads: axum, tokio-postgres and the same statements, nothing else.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bench::statements::{ORDER_READ, POINT_READ, fill};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &'static str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let connections: usize = variable("DATABASE_MAX_CONNECTIONS")?.parse()?;
    let users = Pool::open(&variable("USERS_DATABASE_URL")?, POINT_READ, connections).await?;
    let order_read = fill(ORDER_READ, &["true", "$1"]);
    let orders = Pool::open(&variable("ORDERS_DATABASE_URL")?, &order_read, connections).await?;
    let router = Router::new()
        .route("/users/{id}", get(get_user).with_state(users))
        .route("/orders/{id}", get(get_order).with_state(orders))
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

/// Connections that serve one request at a time, each with its statement prepared.
struct Pool {
    idle: Mutex<Vec<Prepared>>,
    free: Semaphore,
}

struct Prepared {
    client: Client,
    statement: Statement,
}

impl Pool {
    async fn open(url: &str, statement: &str, connections: usize) -> Result<Arc<Self>> {
        let mut idle = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(statement).await?;
            idle.push(Prepared { client, statement });
        }
        Ok(Arc::new(Self { idle: Mutex::new(idle), free: Semaphore::new(connections) }))
    }

    async fn find(&self, id: Uuid) -> Result<Option<Row>> {
        let prepared = self.lease().await?;
        Ok(prepared.client.query_opt(&prepared.statement, &[&id]).await?)
    }

    async fn lease(&self) -> Result<Lease<'_>> {
        let permit = self.free.acquire().await?;
        let prepared = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lease { prepared, pool: self, _permit: permit })
    }
}

/// A connection that returns to the pool before the next request gets a permit.
struct Lease<'a> {
    prepared: Option<Prepared>,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Lease<'_> {
    type Target = Prepared;

    fn deref(&self) -> &Prepared {
        self.prepared.as_ref().expect("there are as many permits as connections")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.prepared.take());
    }
}

#[derive(Serialize)]
struct User<'a> {
    id: Uuid,
    email: &'a str,
    name: &'a str,
    status: &'a str,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

async fn get_user(State(pool): State<Arc<Pool>>, Path(id): Path<Uuid>) -> Response {
    answer(pool.find(id).await, |row| {
        json(&User {
            id: row.get(0),
            email: row.get(1),
            name: row.get(2),
            status: row.get(3),
            created_at: row.get(4),
            updated_at: row.get(5),
            version: row.get(6),
        })
    })
}

#[derive(Serialize)]
struct Order<'a> {
    id: Uuid,
    user_id: Uuid,
    customer: Option<Customer<'a>>,
    status: &'a str,
    currency: &'a str,
    items: Vec<Line<'a>>,
    total_minor: i64,
    placed_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

#[derive(Serialize)]
struct Customer<'a> {
    id: Uuid,
    name: &'a str,
    status: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    line_no: usize,
    sku: &'a str,
    quantity: i32,
    unit_price_minor: i64,
}

async fn get_order(State(pool): State<Arc<Pool>>, Path(id): Path<Uuid>) -> Response {
    answer(pool.find(id).await, |row| {
        let (skus, quantities, unit_prices): (Vec<&str>, Vec<i32>, Vec<i64>) = (row.get(8), row.get(9), row.get(10));
        let items = skus.into_iter().zip(quantities).zip(unit_prices);
        let lines = (1..).zip(items).map(|(line_no, ((sku, quantity), unit_price_minor))| Line {
            line_no,
            sku,
            quantity,
            unit_price_minor,
        });
        let user_id = row.get(1);
        let (name, status): (Option<&str>, Option<&str>) = (row.get(11), row.get(12));
        json(&Order {
            id: row.get(0),
            user_id,
            customer: name.zip(status).map(|(name, status)| Customer { id: user_id, name, status }),
            status: row.get(2),
            currency: row.get(3),
            items: lines.collect(),
            total_minor: row.get(4),
            placed_at: row.get(5),
            updated_at: row.get(6),
            version: row.get(7),
        })
    })
}

fn answer(found: Result<Option<Row>>, json: impl FnOnce(&Row) -> Response) -> Response {
    match found {
        Ok(Some(row)) => json(&row),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

fn json(value: &impl Serialize) -> Response {
    // Larger than almost every answer, so it rarely grows.
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, value).expect("strings and numbers are JSON");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
