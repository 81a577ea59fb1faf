//! A minimal server for the services' jobs: axum, sqlx and the same statements, nothing else. It shows what the driver
//! costs.
#![allow(clippy::disallowed_methods, reason = "the statements are the services', which are checked when these compile")]

use anyhow::Result;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bench::minimal::{Customer, Failure, Line, NewOrder, Order, Page, User, json, serve, variable};
use bench::statements::{ORDER_CREATE, ORDER_PAGE, ORDER_READ, POINT_READ};
use deadpool::managed::{Manager, Metrics, RecycleResult};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::types::Json as Jsonb;
use sqlx::{ConnectOptions, PgConnection, Postgres, Row, query};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let connections: usize = variable("DATABASE_MAX_CONNECTIONS")?.parse()?;
    let users = pool(&variable("USERS_DATABASE_URL")?, connections)?;
    let orders = pool(&variable("ORDERS_DATABASE_URL")?, connections)?;
    serve(
        Router::new()
            .route("/users/{id}", get(read_user).with_state(users))
            .route("/orders/{id}", get(read_order).with_state(orders.clone()))
            .route("/orders", get(list_orders).post(place_order).with_state(orders)),
    )
    .await
}

type Pool = deadpool::managed::Pool<Connector>;

/// Opens connections. sqlx prepares each statement when it is first used.
struct Connector(PgConnectOptions);

impl Manager for Connector {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.0.connect().await
    }

    async fn recycle(&self, _: &mut PgConnection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        Ok(())
    }
}

fn pool(url: &str, connections: usize) -> Result<Pool> {
    let options: PgConnectOptions = url.parse()?;
    Ok(Pool::builder(Connector(options.disable_statement_logging())).max_size(connections).build()?)
}

/// The rows of a statement with its values.
async fn fetch(pool: &Pool, statement: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Failure> {
    Ok(statement.fetch_all(&mut *pool.get().await?).await?)
}

async fn read_user(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let rows = fetch(&pool, query(POINT_READ).bind(id)).await?;
    let Some(row) = rows.first() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let user = User {
        id: row.try_get_unchecked(0)?,
        email: row.try_get_unchecked(1)?,
        name: row.try_get_unchecked(2)?,
        status: row.try_get_unchecked(3)?,
        created_at: row.try_get_unchecked(4)?,
        updated_at: row.try_get_unchecked(5)?,
        version: row.try_get_unchecked(6)?,
    };
    Ok(json(StatusCode::OK, &user))
}

/// sqlx decodes no array of borrowed text.
fn skus(row: &PgRow) -> Result<Vec<String>, sqlx::Error> {
    row.try_get_unchecked(8)
}

fn order<'a>(row: &'a PgRow, skus: &'a [String]) -> Result<Order<'a>, sqlx::Error> {
    let (quantities, unit_prices): (Vec<i32>, Vec<i64>) = (row.try_get_unchecked(9)?, row.try_get_unchecked(10)?);
    let user_id = row.try_get_unchecked(1)?;
    Ok(Order {
        id: row.try_get_unchecked(0)?,
        user_id,
        customer: Some(Customer::found(user_id, row.try_get_unchecked(11)?, row.try_get_unchecked(12)?)),
        status: row.try_get_unchecked(2)?,
        currency: row.try_get_unchecked(3)?,
        items: Line::all(skus.iter().map(String::as_str).zip(quantities).zip(unit_prices)),
        total_minor: row.try_get_unchecked(4)?,
        placed_at: row.try_get_unchecked(5)?,
        updated_at: row.try_get_unchecked(6)?,
        version: row.try_get_unchecked(7)?,
    })
}

async fn read_order(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let rows = fetch(&pool, query(ORDER_READ).bind(true).bind(id)).await?;
    Ok(match rows.first() {
        Some(row) => json(StatusCode::OK, &order(row, &skus(row)?)?),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn list_orders(State(pool): State<Pool>, RawQuery(parameters): RawQuery) -> Result<Response, Failure> {
    let (user_id, limit) = Page::asked(parameters.as_deref())?;
    let rows = fetch(&pool, query(ORDER_PAGE).bind(true).bind(Uuid::max()).bind(limit + 1).bind(user_id)).await?;
    let (found, shown) = (rows.len(), usize::try_from(limit)?);
    let skus: Vec<_> = rows.iter().take(shown).map(skus).collect::<Result<_, _>>()?;
    let orders = rows.iter().zip(&skus).map(|(row, skus)| order(row, skus)).collect::<Result<_, _>>()?;
    Ok(json(StatusCode::OK, &Page::new(orders, found > shown)))
}

async fn place_order(State(pool): State<Pool>, Json(new): Json<NewOrder>) -> Result<Response, Failure> {
    let mut order = new.order();
    let rows = fetch(&pool, insert(&new, &order)).await?;
    let row = rows.first().ok_or("there was no such user")?;
    order.customer = Some(Customer::found(new.user_id, row.try_get_unchecked(0)?, row.try_get_unchecked(1)?));
    Ok(json(StatusCode::CREATED, &order))
}

fn insert<'a>(new: &'a NewOrder, order: &'a Order<'_>) -> Query<'a, Postgres, PgArguments> {
    let skus: Vec<&str> = new.items.iter().map(|item| item.sku.as_str()).collect();
    let quantities: Vec<i32> = new.items.iter().map(|item| item.quantity).collect();
    let unit_prices: Vec<i64> = new.items.iter().map(|item| item.unit_price_minor).collect();
    let (no_key, no_hash, nothing) = (None::<&str>, None::<&[u8]>, None::<&str>);
    query(ORDER_CREATE)
        .bind(order.id)
        .bind(order.user_id)
        .bind(order.status)
        .bind(order.currency)
        .bind(order.total_minor)
        .bind(order.placed_at)
        .bind(order.updated_at)
        .bind(order.version)
        .bind(no_key)
        .bind(no_hash)
        .bind(skus)
        .bind(quantities)
        .bind(unit_prices)
        .bind("order.placed.v1")
        .bind(Jsonb(order))
        .bind(true)
        // Neither an actor nor a trace.
        .bind(nothing)
        .bind(nothing)
}
