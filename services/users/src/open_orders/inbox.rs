//! What users makes of the events of orders: its replica of the orders that are open.

use axum::http::StatusCode;
use chassis::events::consumer::{Feed, Received, Replica};
use chassis::events::progress::Progress;
use serde::Deserialize;
use shared_db::{Database, run};
use uuid::Uuid;

use super::Order;
use crate::db::cursors::{FEED, find_cursor};
use crate::db::open_orders as db;
use crate::error::Error;

/// Types of orders' events that say how an order is now.
const TYPES: [&str; 5] =
    ["order.placed.v1", "order.paid.v1", "order.shipped.v1", "order.delivered.v1", "order.cancelled.v1"];

/// Brings the replica on.
#[derive(Clone)]
pub struct OpenOrdersInbox(pub Database);

/// What users reads of an order, in an event or in a page; fields it does not know are none of its business.
#[derive(Deserialize)]
pub(super) struct Data {
    id: Uuid,
    user_id: Uuid,
    status: Status,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Placed,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
}

impl From<Data> for Order {
    fn from(Data { id, user_id, status, version }: Data) -> Self {
        let is_open = match status {
            Status::Placed | Status::Paid | Status::Shipped => true,
            Status::Delivered | Status::Cancelled => false,
        };
        Self { id, user_id, is_open, version }
    }
}

/// A page of orders.
#[derive(Deserialize)]
struct Page {
    items: Vec<Data>,
}

impl Replica for OpenOrdersInbox {
    type Thing = Order;
    type Error = Error;
    const THINGS: &'static str = "open orders";

    fn read(event: &Received) -> Result<Option<Order>, String> {
        match &*event.r#type {
            "" => Err("it does not say what type of event it is".to_owned()),
            known if TYPES.contains(&known) => {
                event.read::<Data>().map(|data| Some(data.into())).map_err(|error| error.to_string())
            }
            _ => Ok(None),
        }
    }

    fn version(thing: &Order) -> (Uuid, i64) {
        (thing.id, thing.version)
    }

    fn is_refusal(error: &Error) -> bool {
        matches!(error, Error::Database(error) if !error.is_unavailable())
    }

    async fn cursor(&self) -> Result<Option<String>, Error> {
        Ok(run!(self.0, connection => find_cursor(connection, FEED)).await?)
    }

    async fn take_in(&self, orders: &[Order], cursor: Option<&str>) -> Result<(), Error> {
        Ok(run!(self.0, connection => db::store_orders(connection, orders, cursor)).await?)
    }

    async fn park(&self, event: &Received, error: &str) -> Result<(), Error> {
        let (id, r#type, data) = (&event.id, &event.r#type, &event.data);
        Ok(run!(self.0, connection => db::park_event(connection, id, r#type, data, error)).await?)
    }

    async fn parked(&self) -> Result<Vec<Received>, Error> {
        Ok(run!(self.0, connection => db::parked_events(connection)).await?)
    }

    async fn unpark(&self, id: &str) -> Result<(), Error> {
        Ok(run!(self.0, connection => db::unpark_event(connection, id)).await?)
    }

    async fn rebuild(&self, feed: &Feed) -> Result<u64, Error> {
        // Where snapshot and events both tell of an order, the version decides. An open order only ever goes from one of
        // the lists to a later one, so none is missed between them.
        let database = &self.0;
        let end = feed.end().await?;
        let begun = run!(database, connection => db::now(connection)).await?;
        let progress = Progress::new("open orders");
        let mut count = 0;
        for status in ["placed", "paid", "shipped"] {
            let mut cursor = Some(String::new());
            while let Some(after) = cursor {
                let page = feed.http().get(&format!("/orders?status={status}&limit=100{after}")).await?;
                if page.status != StatusCode::OK {
                    return Err(page.unexpected().into());
                }
                cursor = page.cursor("cursor").map(|cursor| format!("&cursor={cursor}"));
                let orders: Vec<Order> = page.json::<Page>()?.items.into_iter().map(Order::from).collect();
                run!(database, connection => db::refresh_orders(connection, &orders, begun)).await?;
                count += orders.len() as u64;
                progress.at(count);
            }
        }
        run!(database, connection => db::close_others(connection, begun)).await?;
        run!(database, connection => db::store_orders(connection, &[], Some(&end))).await?;
        Ok(count)
    }
}
