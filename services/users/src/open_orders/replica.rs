//! The replica of the open orders, from the events of orders.

use std::convert::Infallible;
use std::process::ExitCode;

pub use chassis::events::consumer::Command;
use chassis::events::consumer::{self, Feed, Replica};
use chassis::events::{Broker, Transport};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use shared_db::{alone, run};
use uuid::Uuid;

use crate::App;
use crate::db::open_orders as db;
use crate::domain::Order;
use crate::error::Error;

/// The name of the lock that the consumer holds.
const CONSUMER: &str = "users: consumer of orders' events";

/// Keeps the replica up to date, for ever, in one process of the service at a time.
pub async fn follow(app: App, feed: Feed, transport: Transport<impl Broker>) -> Infallible {
    let replica = OpenOrdersReplica(app);
    alone(&replica.0.database, CONSUMER, || consumer::follow(&replica, &feed, &transport, "users")).await
}

/// Runs `users replica …`.
///
/// # Errors
/// Why the command failed.
pub async fn run(app: App, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    consumer::run(&OpenOrdersReplica(app), feed, command).await
}

struct OpenOrdersReplica(App);

/// What users reads of an order. Unknown fields are ignored.
#[derive(Deserialize)]
struct Data {
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

impl Replica for OpenOrdersReplica {
    type Store = App;
    type Entity = Order;
    type Data = Data;
    const NAME: &'static str = "open orders";
    const TYPES: &'static [&'static str] =
        &["order.placed.v1", "order.paid.v1", "order.shipped.v1", "order.delivered.v1", "order.cancelled.v1"];
    /// An open order only moves from one of these lists to a later one, so none is missed between them.
    const SNAPSHOT: &'static [&'static str] =
        &["/orders?status=placed&limit=100", "/orders?status=paid&limit=100", "/orders?status=shipped&limit=100"];

    fn store(&self) -> &App {
        &self.0
    }

    fn version(order: &Order) -> (Uuid, i64) {
        (order.id, order.version)
    }

    fn is_refusal(error: &Error) -> bool {
        matches!(error, Error::Database(error) if error.is_of_the_data())
    }

    async fn store_newer(&self, orders: &[Order]) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::store_orders(connection, orders)).await?)
    }

    async fn store_snapshot(&self, page: &[Order], begun: DateTime<Utc>) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::refill_orders(connection, page, begun)).await?)
    }

    async fn finish_snapshot(&self, begun: DateTime<Utc>) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::close_other_orders(connection, begun)).await?)
    }
}
