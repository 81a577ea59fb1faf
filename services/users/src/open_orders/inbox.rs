//! What users makes of the events of orders: its replica of the orders that are open.

use std::collections::HashMap;

use chassis::consumer::{Inbox, Received, storable};
use chassis::request::chain;
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

/// The order after an event, if the event is one of those; why it cannot be read, if so.
fn read(event: &Received) -> Result<Option<Order>, String> {
    match &*event.r#type {
        "" => Err("it does not say what type of event it is".to_owned()),
        known if TYPES.contains(&known) => {
            event.read::<Data>().map(|data| Some(data.into())).map_err(|error| error.to_string())
        }
        _ => Ok(None),
    }
}

impl Inbox for OpenOrdersInbox {
    type Error = Error;

    async fn cursor(&self) -> Result<Option<String>, Error> {
        let mut connection = self.0.connection().await?;
        Ok(find_cursor(&mut connection, FEED).await.settle(connection)?)
    }

    async fn apply(&self, events: &[Received], cursor: Option<&str>) -> Result<(), Error> {
        // Of each order the newest only: an event says all, so those before it say nothing more.
        let mut newest: HashMap<Uuid, (Order, &Received)> = HashMap::new();
        for event in events {
            match read(event) {
                Ok(Some(order)) => {
                    let known = newest.get(&order.id);
                    if known.is_none_or(|(known, _)| known.version < order.version) {
                        newest.insert(order.id, (order, event));
                    }
                }
                Ok(None) => {}
                Err(error) => self.park(event, &error).await?,
            }
        }
        let (orders, sources): (Vec<_>, Vec<_>) = newest.into_values().unzip();
        match self.store(&orders, cursor).await {
            Err(Error::Database(error)) if !error.is_unavailable() => {
                // Something in there the database will not have. One by one, to find out what.
                for (order, source) in orders.into_iter().zip(sources) {
                    match self.store(&[order], None).await {
                        Err(Error::Database(error)) if !error.is_unavailable() => {
                            self.park(source, &chain(&error)).await?;
                        }
                        done => done?,
                    }
                }
                self.store(&[], cursor).await
            }
            done => done,
        }
    }
}

impl OpenOrdersInbox {
    async fn store(&self, orders: &[Order], cursor: Option<&str>) -> Result<(), Error> {
        let mut connection = self.0.connection().await?;
        Ok(db::store_orders(&mut connection, orders, cursor).await.settle(connection)?)
    }

    async fn park(&self, event: &Received, error: &str) -> Result<(), Error> {
        // It may quote what could not be read.
        let error = &*storable(error);
        tracing::error!(
            event.id = event.id,
            event.r#type = event.r#type,
            error,
            "an event cannot be applied, and is parked"
        );
        let mut connection = self.0.connection().await?;
        let parked = db::park_event(&mut connection, &event.id, &event.r#type, &event.data, error).await;
        Ok(parked.settle(connection)?)
    }

    /// Tries the parked events again: how many were applied, and how many are parked still.
    pub(super) async fn retry(&self) -> Result<(usize, i64), Error> {
        let mut connection = self.0.connection().await?;
        let parked = db::parked_events(&mut connection).await.settle(connection)?;
        let mut applied = 0;
        for db::ParkedEvent { id, r#type, data } in parked {
            let event = Received { id, r#type, time: None, data };
            let done = match read(&event) {
                Ok(order) => self.store(order.as_slice(), None).await.map_err(|error| chain(&error)),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.park(&event, &error).await?;
                continue;
            }
            let mut connection = self.0.connection().await?;
            db::unpark_event(&mut connection, &event.id).await.settle(connection)?;
            applied += 1;
        }
        let mut connection = self.0.connection().await?;
        Ok((applied, db::count_parked_events(&mut connection).await.settle(connection)?))
    }
}
