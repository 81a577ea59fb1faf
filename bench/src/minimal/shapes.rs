//! The shapes of the answers, which are those of the services.
#![allow(missing_docs, reason = "the services' documents describe the fields")]

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Failure;

#[derive(Debug, Serialize)]
pub struct User<'a> {
    pub id: Uuid,
    pub email: &'a str,
    pub name: &'a str,
    pub status: &'a str,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

#[derive(Debug, Serialize)]
pub struct Order<'a> {
    pub id: Uuid,
    pub user_id: Uuid,
    // The event of an order has no customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<Option<Customer<'a>>>,
    pub status: &'a str,
    pub currency: &'a str,
    pub items: Vec<Line<'a>>,
    pub total_minor: i64,
    pub placed_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
}

#[derive(Debug, Serialize)]
pub struct Customer<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub status: &'a str,
}

impl<'a> Customer<'a> {
    /// A customer whose row was found.
    pub fn found(id: Uuid, name: Option<&'a str>, status: Option<&'a str>) -> Option<Self> {
        name.zip(status).map(|(name, status)| Self { id, name, status })
    }
}

#[derive(Debug, Serialize)]
pub struct Line<'a> {
    pub line_no: usize,
    pub sku: &'a str,
    pub quantity: i32,
    pub unit_price_minor: i64,
}

impl<'a> Line<'a> {
    /// The lines of an order, from the columns of its items.
    pub fn all(columns: impl Iterator<Item = ((&'a str, i32), i64)>) -> Vec<Self> {
        let numbered = (1..).zip(columns);
        numbered
            .map(|(line_no, ((sku, quantity), unit_price_minor))| Self { line_no, sku, quantity, unit_price_minor })
            .collect()
    }
}

#[derive(Debug, Serialize)]
pub struct Page<'a> {
    pub items: Vec<Order<'a>>,
    pub next_cursor: Option<Uuid>,
}

impl<'a> Page<'a> {
    /// These orders, and where the next page begins if there are more.
    pub fn new(items: Vec<Order<'a>>, has_more: bool) -> Self {
        let next_cursor = items.last().filter(|_| has_more).map(|last| last.id);
        Self { items, next_cursor }
    }

    /// The user and the number of orders that a request asks for.
    ///
    /// # Errors
    /// [`Failure`] if one is missing or no id or number.
    pub fn asked(query: Option<&str>) -> Result<(Uuid, i64), Failure> {
        let find = |name| {
            let value = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix(name));
            value.ok_or("a parameter is missing")
        };
        Ok((find("user_id=")?.parse()?, find("limit=")?.parse()?))
    }
}

#[derive(Debug, Deserialize)]
pub struct NewOrder {
    pub user_id: Uuid,
    pub currency: String,
    pub items: Vec<NewItem>,
}

#[derive(Debug, Deserialize)]
pub struct NewItem {
    pub sku: String,
    pub quantity: i32,
    pub unit_price_minor: i64,
}

impl NewOrder {
    /// The order as it is placed now.
    pub fn order(&self) -> Order<'_> {
        let now = Utc::now();
        let items = self.items.iter().map(|item| ((item.sku.as_str(), item.quantity), item.unit_price_minor));
        Order {
            id: Uuid::now_v7(),
            user_id: self.user_id,
            customer: None,
            status: "placed",
            currency: &self.currency,
            items: Line::all(items),
            total_minor: self.items.iter().map(|item| i64::from(item.quantity) * item.unit_price_minor).sum(),
            placed_at: now,
            updated_at: now,
            version: 1,
        }
    }
}
