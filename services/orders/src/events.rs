//! The events that the service announces, and how it reads them back from its log.

use std::convert::Infallible;

pub use chassis::events::Announcement;
use chassis::events::{self, Broker, LoggedEvent};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared_db::alone;
use uuid::Uuid;

use crate::App;
use crate::domain::{Event, Item, NewOrder, Order, Recorded};

const PLACED: &str = "order.placed.v1";
const PAID: &str = "order.paid.v1";
const SHIPPED: &str = "order.shipped.v1";
const DELIVERED: &str = "order.delivered.v1";
const CANCELLED: &str = "order.cancelled.v1";

/// The order after an event, as version 1 of the events' schema publishes it. Other services depend on it: fields may be
/// added, but never removed or given another meaning.
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
    Announcement::new(r#type, &data)
}

/// The part of [`Data`] that the fold needs. The rest follows from earlier events.
#[derive(Deserialize)]
struct Details {
    user_id: Uuid,
    currency: String,
    items: Vec<Item>,
    cancel_reason: Option<String>,
}

/// Why an event of the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The service writes no events of this type.
    #[error("{0} is not a type of an order's events")]
    Type(String),
    /// The data does not fit the type.
    #[error("the data of event {version} does not fit its type {type}", r#type = r#type)]
    Data {
        /// The event's version.
        version: i64,
        /// Its type.
        r#type: String,
        /// The first fault in the data.
        source: serde_json::Error,
    },
}

/// Reads an event of the log.
///
/// # Errors
/// If [`announce`] did not write it.
pub fn read(event: &LoggedEvent) -> Result<Recorded, Unreadable> {
    let LoggedEvent { version, r#type, data, occurred_at, .. } = event;
    let details = || {
        serde_json::from_str::<Details>(data.get()).map_err(|source| Unreadable::Data {
            version: *version,
            r#type: r#type.clone(),
            source,
        })
    };
    let event = match &**r#type {
        PLACED => {
            let Details { user_id, currency, items, .. } = details()?;
            Event::Placed(NewOrder { user_id, currency, items })
        }
        PAID => Event::Paid,
        SHIPPED => Event::Shipped,
        DELIVERED => Event::Delivered,
        CANCELLED => Event::Cancelled { reason: details()?.cancel_reason },
        other => return Err(Unreadable::Type(other.to_owned())),
    };
    Ok(Recorded { version: *version, occurred_at: *occurred_at, event })
}

/// Publishes the log by `broker`, for ever, in one process of the service at a time.
pub async fn publish(app: App, broker: impl Broker) -> Infallible {
    alone(&app.database, "orders: relay", || events::publish(&app, &broker)).await
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
            let (version, occurred_at) = (order.version, order.updated_at);
            let logged = LoggedEvent { subject: order.id, version, r#type: r#type.to_owned(), data, occurred_at };
            let read = read(&logged).expect("readable");
            assert_eq!(read, Recorded { version: order.version, occurred_at: order.updated_at, event });
        }
    }
}
