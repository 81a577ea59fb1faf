//! Rows of orders, and what they mean.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::customers::Customer;
use crate::domain::{Item, Order, Status};

/// An order with its lines, and its customer if it has one.
pub(super) struct OrderRow {
    pub id: Uuid,
    pub user_id: Uuid,
    pub status: String,
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

impl TryFrom<OrderRow> for (Order, Option<Customer>) {
    type Error = sqlx::Error;

    fn try_from(row: OrderRow) -> Result<Self, sqlx::Error> {
        let customer = customer(row.user_id, row.customer_name, row.customer_status, row.customer_version);
        let items = row.skus.into_iter().zip(row.quantities).zip(row.unit_prices);
        let order = Order {
            id: row.id,
            user_id: row.user_id,
            status: status(&row.status)?,
            currency: row.currency,
            items: items.map(|((sku, quantity), unit_price_minor)| Item { sku, quantity, unit_price_minor }).collect(),
            total_minor: row.total_minor,
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.version,
        };
        Ok((order, customer))
    }
}

/// The customer that an outer join found.
pub(super) fn customer(id: Uuid, name: Option<String>, status: Option<String>, version: Option<i64>) -> Option<Customer> {
    Some(Customer { id, name: name?, status: status?, version: version? })
}

pub(super) fn status(text: &str) -> Result<Status, sqlx::Error> {
    Status::parse(text).ok_or_else(|| sqlx::Error::Decode(format!("unknown status {text}").into()))
}
