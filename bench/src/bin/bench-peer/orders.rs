//! Orders.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::{Json as Jsonb, ToSql};
use uuid::Uuid;

use crate::{Failure, Pool, json, query};

/// The statements' places in the pool.
const READ: usize = 0;
const PAGE: usize = 1;
const CREATE: usize = 2;

#[derive(Debug, Serialize)]
struct Order<'a> {
    id: Uuid,
    user_id: Uuid,
    // The event of an order has no customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Option<Customer<'a>>>,
    status: &'a str,
    currency: &'a str,
    items: Vec<Line<'a>>,
    total_minor: i64,
    placed_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

#[derive(Debug, Serialize)]
struct Customer<'a> {
    id: Uuid,
    name: &'a str,
    status: &'a str,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    line_no: usize,
    sku: &'a str,
    quantity: i32,
    unit_price_minor: i64,
}

fn order(row: &Row) -> Order<'_> {
    let (skus, quantities, unit_prices): (Vec<&str>, Vec<i32>, Vec<i64>) = (row.get(8), row.get(9), row.get(10));
    let items = skus.into_iter().zip(quantities).zip(unit_prices);
    let lines = (1..).zip(items).map(|(line_no, ((sku, quantity), unit_price_minor))| Line {
        line_no,
        sku,
        quantity,
        unit_price_minor,
    });
    let user_id = row.get(1);
    Order {
        id: row.get(0),
        user_id,
        customer: Some(customer(user_id, row.get(11), row.get(12))),
        status: row.get(2),
        currency: row.get(3),
        items: lines.collect(),
        total_minor: row.get(4),
        placed_at: row.get(5),
        updated_at: row.get(6),
        version: row.get(7),
    }
}

fn customer<'a>(id: Uuid, name: Option<&'a str>, status: Option<&'a str>) -> Option<Customer<'a>> {
    name.zip(status).map(|(name, status)| Customer { id, name, status })
}

pub async fn get(State(pool): State<Pool>, Path(id): Path<Uuid>) -> Result<Response, Failure> {
    let rows = query(&pool, READ, &[&true, &id]).await?;
    Ok(match rows.first() {
        Some(row) => json(StatusCode::OK, &order(row)),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    items: Vec<Order<'a>>,
    next_cursor: Option<Uuid>,
}

pub async fn list(State(pool): State<Pool>, RawQuery(parameters): RawQuery) -> Result<Response, Failure> {
    let parameters = parameters.unwrap_or_default();
    let find = |name| parameters.split('&').find_map(|pair| pair.strip_prefix(name)).ok_or("a parameter is missing");
    let (user_id, limit): (Uuid, i64) = (find("user_id=")?.parse()?, find("limit=")?.parse()?);
    let rows = query(&pool, PAGE, &[&true, &Uuid::max(), &(limit + 1), &user_id]).await?;
    let shown = usize::try_from(limit)?;
    let items: Vec<_> = rows.iter().take(shown).map(order).collect();
    let next_cursor = items.last().filter(|_| rows.len() > shown).map(|last| last.id);
    Ok(json(StatusCode::OK, &Page { items, next_cursor }))
}

#[derive(Deserialize)]
pub struct NewOrder {
    user_id: Uuid,
    currency: String,
    items: Vec<NewItem>,
}

#[derive(Deserialize)]
struct NewItem {
    sku: String,
    quantity: i32,
    unit_price_minor: i64,
}

pub async fn place(State(pool): State<Pool>, Json(new): Json<NewOrder>) -> Result<Response, Failure> {
    let mut order = new.order();
    let rows = insert(&pool, &order).await?;
    let row = rows.first().ok_or("there was no such user")?;
    order.customer = Some(customer(new.user_id, row.get(0), row.get(1)));
    Ok(json(StatusCode::CREATED, &order))
}

impl NewOrder {
    fn order(&self) -> Order<'_> {
        let now = Utc::now();
        let lines = (1..).zip(&self.items).map(|(line_no, item)| Line {
            line_no,
            sku: &item.sku,
            quantity: item.quantity,
            unit_price_minor: item.unit_price_minor,
        });
        Order {
            id: Uuid::now_v7(),
            user_id: self.user_id,
            customer: None,
            status: "placed",
            currency: &self.currency,
            items: lines.collect(),
            total_minor: self.items.iter().map(|item| i64::from(item.quantity) * item.unit_price_minor).sum(),
            placed_at: now,
            updated_at: now,
            version: 1,
        }
    }
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
