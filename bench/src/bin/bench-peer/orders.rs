//! Orders.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bench::minimal::{Customer, Failure, Line, NewOrder, Order, Page, json};
use tokio_postgres::Row;
use tokio_postgres::types::{Json as Jsonb, ToSql};
use uuid::Uuid;

use crate::{Pool, query};

/// The statements' places in the pool.
const READ: usize = 0;
const PAGE: usize = 1;
const CREATE: usize = 2;

fn order(row: &Row) -> Order<'_> {
    let (skus, quantities, unit_prices): (Vec<&str>, Vec<i32>, Vec<i64>) = (row.get(8), row.get(9), row.get(10));
    let user_id = row.get(1);
    Order {
        id: row.get(0),
        user_id,
        customer: Some(Customer::found(user_id, row.get(11), row.get(12))),
        status: row.get(2),
        currency: row.get(3),
        items: Line::all(skus.into_iter().zip(quantities).zip(unit_prices)),
        total_minor: row.get(4),
        placed_at: row.get(5),
        updated_at: row.get(6),
        version: row.get(7),
    }
}

pub async fn get(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let rows = query(&pool, READ, &[&true, &id]).await?;
    Ok(match rows.first() {
        Some(row) => json(StatusCode::OK, &order(row)),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

pub async fn list(State(pool): State<Pool>, RawQuery(parameters): RawQuery) -> Result<Response, Failure> {
    let (user_id, limit) = Page::asked(parameters.as_deref())?;
    let rows = query(&pool, PAGE, &[&true, &Uuid::max(), &(limit + 1), &user_id]).await?;
    let shown = usize::try_from(limit)?;
    Ok(json(StatusCode::OK, &Page::new(rows.iter().take(shown).map(order).collect(), rows.len() > shown)))
}

pub async fn place(State(pool): State<Pool>, Json(new): Json<NewOrder>) -> Result<Response, Failure> {
    let mut order = new.order();
    let rows = insert(&pool, &order).await?;
    let row = rows.first().ok_or("there was no such user")?;
    order.customer = Some(Customer::found(new.user_id, row.get(0), row.get(1)));
    Ok(json(StatusCode::CREATED, &order))
}

async fn insert(pool: &Pool, order: &Order<'_>) -> Result<Vec<Row>, Failure> {
    let skus: Vec<&str> = order.items.iter().map(|item| item.sku).collect();
    let quantities: Vec<i32> = order.items.iter().map(|item| item.quantity).collect();
    let unit_prices: Vec<i64> = order.items.iter().map(|item| item.unit_price_minor).collect();
    let (no_key, no_hash, nothing) = (None::<&str>, None::<&[u8]>, None::<&str>);
    let values: [&(dyn ToSql + Sync); 18] = [
        &order.id,
        &order.user_id,
        &order.status,
        &order.currency,
        &order.total_minor,
        &order.placed_at,
        &order.updated_at,
        &order.version,
        &no_key,
        &no_hash,
        &skus,
        &quantities,
        &unit_prices,
        &"order.placed.v1",
        &Jsonb(order),
        &true,
        // Neither an actor nor a trace.
        &nothing,
        &nothing,
    ];
    query(pool, CREATE, &values).await
}
