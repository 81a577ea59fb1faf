//! A minimal server for the services' reads: axum, tokio-postgres and the same statements, nothing else.

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bench::statements::{ORDER_READ, POINT_READ, fill};
use chrono::{DateTime, Utc};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &'static str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let connections: usize = variable("DATABASE_MAX_CONNECTIONS")?.parse()?;
    let users = pool(variable("USERS_DATABASE_URL")?, POINT_READ.to_owned(), connections)?;
    let orders = pool(variable("ORDERS_DATABASE_URL")?, fill(ORDER_READ, &["true", "$1"]), connections)?;
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

type Pool = deadpool::managed::Pool<Connector>;

/// Opens connections, and prepares a statement on each.
struct Connector {
    url: String,
    statement: String,
}

impl Manager for Connector {
    type Type = (Client, Statement);
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<(Client, Statement), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        let statement = client.prepare(&self.statement).await?;
        Ok((client, statement))
    }

    async fn recycle(&self, _: &mut (Client, Statement), _: &Metrics) -> RecycleResult<tokio_postgres::Error> {
        Ok(())
    }
}

fn pool(url: String, statement: String, connections: usize) -> Result<Pool> {
    Ok(Pool::builder(Connector { url, statement }).max_size(connections).build()?)
}

async fn find(pool: &Pool, id: Uuid) -> Result<Option<Row>> {
    let (client, statement) = &*pool.get().await?;
    Ok(client.query_opt(statement, &[&id]).await?)
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

async fn get_user(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Response {
    answer(find(&pool, id).await, |row| {
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

async fn get_order(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Response {
    answer(find(&pool, id).await, |row| {
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
