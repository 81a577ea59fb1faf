//! What users makes of the events of orders: its replica of the orders that are open.

use axum::http::StatusCode;
use chassis::consumer::{Feed, Received, Replica};
use chassis::progress::Progress;
use serde::Deserialize;
use shared_db::{Database, Settle};
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
        let mut connection = self.0.connection().await?;
        Ok(find_cursor(&mut connection, FEED).await.settle(connection)?)
    }

    async fn take_in(&self, orders: &[Order], cursor: Option<&str>) -> Result<(), Error> {
        let mut connection = self.0.connection().await?;
        Ok(db::store_orders(&mut connection, orders, cursor).await.settle(connection)?)
    }

    async fn park(&self, event: &Received, error: &str) -> Result<(), Error> {
        let mut connection = self.0.connection().await?;
        let parked = db::park_event(&mut connection, &event.id, &event.r#type, &event.data, error).await;
        Ok(parked.settle(connection)?)
    }

    async fn parked(&self) -> Result<Vec<Received>, Error> {
        let mut connection = self.0.connection().await?;
        Ok(db::parked_events(&mut connection).await.settle(connection)?)
    }

    async fn unpark(&self, id: &str) -> Result<(), Error> {
        let mut connection = self.0.connection().await?;
        Ok(db::unpark_event(&mut connection, id).await.settle(connection)?)
    }

    async fn rebuild(&self, feed: &Feed) -> Result<u64, Error> {
        // Where snapshot and events both tell of an order, the version decides. An open order only ever goes from one of
        // the lists to a later one, so none is missed between them.
        let database = &self.0;
        let end = feed.end().await?;
        let mut connection = database.connection().await?;
        let begun = db::now(&mut connection).await.settle(connection)?;
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
                let mut connection = database.connection().await?;
                db::refresh_orders(&mut connection, &orders, begun).await.settle(connection)?;
                count += orders.len() as u64;
                progress.at(count);
            }
        }
        let mut connection = database.connection().await?;
        db::close_others(&mut connection, begun).await.settle(connection)?;
        let mut connection = database.connection().await?;
        db::store_orders(&mut connection, &[], Some(&end)).await.settle(connection)?;
        Ok(count)
    }
}
