//! What the service announces, and how it reads its own announcements back.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::{Event, Item, NewOrder, Order, Recorded};

/// What names this service's events: `source` of a CloudEvent.
pub const SOURCE: &str = "/orders";

const PLACED: &str = "order.placed.v1";
const PAID: &str = "order.paid.v1";
const SHIPPED: &str = "order.shipped.v1";
const DELIVERED: &str = "order.delivered.v1";
const CANCELLED: &str = "order.cancelled.v1";

/// An event about to be appended to the log, in the statement that changes the order.
#[derive(Debug)]
pub struct Announcement {
    /// The CloudEvents type.
    pub r#type: &'static str,
    /// The order after the event.
    pub data: Json<Box<RawValue>>,
}

/// The order after an event, as version 1 of the events' schema publishes it. Others depend on it: fields are added, never
/// taken away or given another meaning.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    user_id: Uuid,
    status: &'static str,
    currency: &'a str,
    items: Vec<Line<'a>>,
    total_minor: i64,
    placed_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    line_no: usize,
    #[serde(flatten)]
    item: &'a Item,
}

/// The announcement of `event`, which made `order` what it is.
pub fn announce(event: &Event, order: &Order) -> Announcement {
    let Order { id, user_id, status, currency, items, total_minor, placed_at, updated_at, version } = order;
    let (r#type, cancel_reason) = match event {
        Event::Placed(_) => (PLACED, None),
        Event::Paid => (PAID, None),
        Event::Shipped => (SHIPPED, None),
        Event::Delivered => (DELIVERED, None),
        Event::Cancelled { reason } => (CANCELLED, reason.as_deref()),
    };
    let data = Data {
        id: *id,
        user_id: *user_id,
        status: status.as_str(),
        currency,
        items: (1..).zip(items).map(|(line_no, item)| Line { line_no, item }).collect(),
        total_minor: *total_minor,
        placed_at: *placed_at,
        updated_at: *updated_at,
        version: *version,
        cancel_reason,
    };
    let data = serde_json::value::to_raw_value(&data).expect("strings and numbers are JSON");
    Announcement { r#type, data: Json(data) }
}

/// The part of [`Data`] that is news to a reader who knows the events before.
#[derive(Deserialize)]
struct News {
    user_id: Uuid,
    currency: String,
    items: Vec<NewsItem>,
    cancel_reason: Option<String>,
}

#[derive(Deserialize)]
struct NewsItem {
    sku: String,
    quantity: i32,
    unit_price_minor: i64,
}

/// Why an event of the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing here writes events of this type.
    #[error("{0} is no type of an order's events")]
    Type(String),
    /// Its data is not what the type says.
    #[error("the data of event {version} is not that of a {type}", r#type = r#type)]
    Data {
        /// The event's version.
        version: i64,
        /// Its type.
        r#type: String,
        /// Where.
        source: serde_json::Error,
    },
}

/// Reads an event of the log.
///
/// # Errors
/// If it is none that [`announce`] wrote.
pub fn read(version: i64, occurred_at: DateTime<Utc>, r#type: &str, data: &RawValue) -> Result<Recorded, Unreadable> {
    let news = || {
        serde_json::from_str::<News>(data.get()).map_err(|source| Unreadable::Data {
            version,
            r#type: r#type.to_owned(),
            source,
        })
    };
    let event = match r#type {
        PLACED => {
            let News { user_id, currency, items, .. } = news()?;
            let items = items.into_iter().map(|NewsItem { sku, quantity, unit_price_minor }| Item {
                sku,
                quantity,
                unit_price_minor,
            });
            Event::Placed(NewOrder { user_id, currency, items: items.collect() })
        }
        PAID => Event::Paid,
        SHIPPED => Event::Shipped,
        DELIVERED => Event::Delivered,
        CANCELLED => Event::Cancelled { reason: news()?.cancel_reason },
        other => return Err(Unreadable::Type(other.to_owned())),
    };
    Ok(Recorded { version, occurred_at, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_announced_is_read_back() {
        let items = vec![Item { sku: "tea".into(), quantity: 2, unit_price_minor: 350 }];
        let new = NewOrder { user_id: Uuid::now_v7(), currency: "EUR".into(), items };
        let mut order = Order::place(Uuid::now_v7(), new.clone(), Utc::now());
        let cancelled = Event::Cancelled { reason: Some("changed my mind".into()) };
        for event in [Event::Placed(new), Event::Paid, cancelled] {
            if order.status != event.leads_to() {
                order = order.after(&event, Utc::now()).expect("allowed");
            }
            let Announcement { r#type, data } = announce(&event, &order);
            let read = read(order.version, order.updated_at, r#type, &data.0).expect("readable");
            assert_eq!(read, Recorded { version: order.version, occurred_at: order.updated_at, event });
        }
    }
}
