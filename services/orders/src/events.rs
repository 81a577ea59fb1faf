//! The events that the service announces, and how it reads them back from its log.

use std::convert::Infallible;

pub use chassis::events::Announcement;
use chassis::events::{self, Broker, EventType, LoggedEvent, Version, newest};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use shared_db::alone;
use uuid::Uuid;

use crate::App;
use crate::domain::{Event, FoldError, Item, NewOrder, Order, Recorded, fold};

const PLACED: &str = "order.placed.v1";
const PAID: &str = "order.paid.v1";
const SHIPPED: &str = "order.shipped.v1";
const DELIVERED: &str = "order.delivered.v1";
const CANCELLED: &str = "order.cancelled.v1";

/// What orders publishes. The contract is beside it in `contract/`.
pub const TYPES: &[EventType] = &[
    &[Version::first(PLACED)],
    &[Version::first(PAID)],
    &[Version::first(SHIPPED)],
    &[Version::first(DELIVERED)],
    &[Version::first(CANCELLED)],
];

/// The order after an event, as version 1 of the events' schema publishes it. Other services depend on it: fields may be
/// added, but never removed or given another meaning.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    user_id: Uuid,
    status: &'static str,
    currency: &'a str,
    #[serde(serialize_with = "serialize_lines")]
    items: &'a [Item],
    total_minor: i64,
    #[serde(serialize_with = "chassis::moment::serialize")]
    placed_at: DateTime<Utc>,
    #[serde(serialize_with = "chassis::moment::serialize")]
    updated_at: DateTime<Utc>,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_reason: Option<&'a str>,
}

/// A line in an event. It is not the API's: the two contracts change apart.
#[derive(Serialize)]
struct Line<'a> {
    line_no: usize,
    sku: &'a str,
    quantity: i32,
    unit_price_minor: i64,
}

/// Writes items as numbered lines.
fn serialize_lines<S: Serializer>(items: &[Item], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq((1..).zip(items).map(|(line_no, item)| {
        let Item { sku, quantity, unit_price_minor } = item;
        Line { line_no, sku, quantity: *quantity, unit_price_minor: *unit_price_minor }
    }))
}

/// The announcement of `event`, which made `order` what it is.
pub fn announce(event: &Event, order: &Order) -> Announcement {
    match event {
        Event::Placed(_) => announce_placed(order),
        Event::Paid => announcement(PAID, order, None),
        Event::Shipped => announcement(SHIPPED, order, None),
        Event::Delivered => announcement(DELIVERED, order, None),
        Event::Cancelled { reason } => announcement(CANCELLED, order, reason.as_deref()),
    }
}

/// The announcement of an order that is placed.
pub fn announce_placed(order: &Order) -> Announcement {
    announcement(PLACED, order, None)
}

fn announcement(r#type: &'static str, order: &Order, cancel_reason: Option<&str>) -> Announcement {
    let Order { id, user_id, status, currency, items, total_minor, placed_at, updated_at, version } = order;
    let data = Data {
        id: *id,
        user_id: *user_id,
        status: status.as_str(),
        currency,
        items,
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
    let event = newest(event, TYPES);
    let LoggedEvent { version, r#type, data, occurred_at, .. } = &*event;
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

/// An event of an order's log, and whether it is in the part that is archived. There each order has one event, which stands
/// for all before it.
#[derive(Debug)]
pub struct Logged {
    /// The event.
    pub event: LoggedEvent,
    /// Whether it is in the archived part.
    pub is_archived: bool,
}

impl Logged {
    /// The order after the event that stands for all before it. `None` for any other event.
    ///
    /// # Errors
    /// If [`announce`] did not write the event.
    pub fn base(&self) -> Result<Option<Order>, Unreadable> {
        #[derive(Deserialize)]
        struct Base {
            #[serde(flatten)]
            new: Details,
            placed_at: DateTime<Utc>,
        }
        let Self { event, is_archived } = self;
        if !is_archived || event.version == 1 {
            return Ok(None);
        }
        let event = newest(event, TYPES);
        let LoggedEvent { subject, version, r#type, data, occurred_at, .. } = &*event;
        let unreadable = |source| Unreadable::Data { version: *version, r#type: r#type.clone(), source };
        let Base { new, placed_at } = serde_json::from_str(data.get()).map_err(unreadable)?;
        let Details { user_id, currency, items, .. } = new;
        let placed = Order::place(*subject, NewOrder { user_id, currency, items }, placed_at);
        let status = read(&self.event)?.event.leads_to();
        Ok(Some(Order { status, updated_at: *occurred_at, version: *version, ..placed }))
    }
}

/// Why an order cannot be folded from its log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An event cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The events contradict each other.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// The order `id` after the events of its log, oldest first; `None` if there are none.
///
/// # Errors
/// [`LogError`].
pub fn fold_log(id: Uuid, log: &[Logged]) -> Result<Option<Order>, LogError> {
    let base = log.first().map(Logged::base).transpose()?.flatten();
    let after = if base.is_some() { &log[1..] } else { log };
    let recorded: Result<Vec<_>, _> = after.iter().map(|logged| read(&logged.event)).collect();
    Ok(fold(id, base, recorded?)?)
}

/// Publishes the log by each of the brokers, for ever, in one process of the service at a time.
pub async fn publish(app: App, brokers: Vec<impl Broker>) -> Infallible {
    alone(&app.database, "orders: relay", || events::publish(&app, &brokers)).await
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

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
            let Announcement { r#type, data, actor, traceparent } = announce(&event, &order);
            let (version, occurred_at) = (order.version, order.updated_at);
            let (subject, r#type) = (order.id, r#type.to_owned());
            let data = RawValue::from_string(data).expect("JSON");
            let logged = LoggedEvent { subject, version, r#type, data, occurred_at, actor, traceparent };
            let read = read(&logged).expect("readable");
            assert_eq!(read, Recorded { version: order.version, occurred_at: order.updated_at, event });
            // Once the events before it are archived, it stands for them.
            let kept = Logged { event: logged, is_archived: true };
            let stands_for_others = order.version > 1;
            assert_eq!(kept.base().expect("readable"), stands_for_others.then(|| order.clone()));
        }
    }
}
