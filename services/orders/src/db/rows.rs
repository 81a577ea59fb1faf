//! Rows of orders.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{Customer, Item, Order, Status};

/// An order, and its customer if the statement joined the view `customers` and found one there.
#[derive(Debug, Clone)]
pub struct Found {
    /// The order.
    pub order: Order,
    /// What the join found.
    pub customer: Option<Customer>,
}

shared_db::decode_status!(Status);

/// A row of `orders` with its lines.
pub(super) struct OrderRow {
    pub id: Uuid,
    pub user_id: Uuid,
    pub status: Status,
    pub currency: String,
    pub total_minor: i64,
    pub placed_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    pub skus: Vec<String>,
    pub quantities: Vec<i32>,
    pub unit_prices: Vec<i64>,
    pub customer_name: Option<String>,
    pub customer_status: Option<String>,
    pub customer_version: Option<i64>,
}

/// An [`OrderRow`] of a list that the database may have cut.
pub(super) struct ListedRow {
    pub id: Uuid,
    pub user_id: Uuid,
    pub status: Status,
    pub currency: String,
    pub total_minor: i64,
    pub placed_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    pub skus: Vec<String>,
    pub quantities: Vec<i32>,
    pub unit_prices: Vec<i64>,
    pub customer_name: Option<String>,
    pub customer_status: Option<String>,
    pub customer_version: Option<i64>,
    /// Whether there were more rows.
    pub is_cut: bool,
}

impl From<ListedRow> for OrderRow {
    fn from(row: ListedRow) -> Self {
        let ListedRow { id, user_id, status, currency, total_minor, placed_at, updated_at, version, .. } = row;
        let ListedRow { skus, quantities, unit_prices, customer_name, customer_status, customer_version, .. } = row;
        Self {
            id,
            user_id,
            status,
            currency,
            total_minor,
            placed_at,
            updated_at,
            version,
            skus,
            quantities,
            unit_prices,
            customer_name,
            customer_status,
            customer_version,
        }
    }
}

impl From<OrderRow> for Found {
    fn from(row: OrderRow) -> Self {
        let items = row.skus.into_iter().zip(row.quantities).zip(row.unit_prices);
        let order = Order {
            id: row.id,
            user_id: row.user_id,
            status: row.status,
            currency: row.currency,
            items: items.map(|((sku, quantity), unit_price_minor)| Item { sku, quantity, unit_price_minor }).collect(),
            total_minor: row.total_minor,
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.version,
        };
        let customer = customer(row.user_id, row.customer_name, row.customer_status, row.customer_version);
        Self { order, customer }
    }
}

/// The customer that an outer join found.
pub(super) fn customer(id: Uuid, name: Option<String>, status: Option<String>, version: Option<i64>) -> Option<Customer> {
    Some(Customer { id, name: name?, status: status?, version: version? })
}

/// The lines of an order as columns, for `unnest`.
pub(super) struct Lines<'a> {
    pub skus: Vec<&'a str>,
    pub quantities: Vec<i32>,
    pub unit_prices: Vec<i64>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(items: &'a [Item]) -> Self {
        Self {
            skus: items.iter().map(|item| item.sku.as_str()).collect(),
            quantities: items.iter().map(|item| item.quantity).collect(),
            unit_prices: items.iter().map(|item| item.unit_price_minor).collect(),
        }
    }
}
