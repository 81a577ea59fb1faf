//! The replica of the customers, from the events of users. It also cancels the open orders of customers who have been
//! deactivated meanwhile.

use std::convert::Infallible;
use std::process::ExitCode;

use chassis::auth::Caller;
pub use chassis::events::consumer::Command;
use chassis::events::consumer::{self, Feed, Replica};
use chassis::events::{Broker, Transport};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use shared_db::{alone, run};
use uuid::Uuid;

use crate::App;
use crate::db::customers as db;
use crate::domain::Customer;
use crate::domain::Event;
use crate::error::Error;
use crate::step::take_step;

/// The name of the lock that the consumer holds.
const CONSUMER: &str = "orders: consumer of users' events";
/// The reason of an order that is cancelled because its customer was deactivated.
const CUSTOMER_DEACTIVATED: &str = "customer-deactivated";

/// Keeps the replica up to date, for ever, in one process of the service at a time.
pub async fn follow(app: App, feed: Feed, transport: Transport<impl Broker>) -> Infallible {
    let replica = CustomersReplica(app);
    let found = "Open orders whose customer was deactivated, by outcome.";
    metrics::describe_counter!("orders_of_deactivated_customers_total", metrics::Unit::Count, found);
    alone(&replica.0.database, CONSUMER, || consumer::follow(&replica, &feed, &transport, "orders")).await
}

/// Runs `orders replica …`.
///
/// # Errors
/// Why the command failed.
pub async fn run(app: App, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    consumer::run(&CustomersReplica(app), feed, command).await
}

struct CustomersReplica(App);

/// What orders reads of a user. Unknown fields are ignored.
#[derive(Deserialize)]
struct Data {
    id: Uuid,
    name: String,
    status: Status,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Active,
    Deactivated,
}

impl From<Data> for Customer {
    fn from(Data { id, name, status, version }: Data) -> Self {
        let status = match status {
            Status::Active => "active",
            Status::Deactivated => "deactivated",
        };
        Self { id, name, status: status.to_owned(), version }
    }
}

impl Replica for CustomersReplica {
    type Store = App;
    type Entity = Customer;
    type Data = Data;
    const NAME: &'static str = "customers";
    const TYPES: &'static [&'static str] =
        &["user.registered.v1", "user.changed.v1", "user.deactivated.v1", "user.reactivated.v1"];
    const SNAPSHOT: &'static [&'static str] = &["/users?limit=100"];

    fn store(&self) -> &App {
        &self.0
    }

    fn version(customer: &Customer) -> (Uuid, i64) {
        (customer.id, customer.version)
    }

    fn is_refusal(error: &Error) -> bool {
        matches!(error, Error::Database(error) if error.is_of_the_data())
    }

    async fn store_newer(&self, customers: &[Customer]) -> Result<(), Error> {
        run!(self.0.database, connection => db::store_customers(connection, customers)).await?;
        // After the row has changed: an order that is being placed holds its customer's row. So either it was committed
        // before and is found here, or it sees the new status and is refused.
        let deactivated = customers.iter().filter(|customer| customer.status == "deactivated");
        let deactivated: Vec<Uuid> = deactivated.map(|customer| customer.id).collect();
        if deactivated.is_empty() { Ok(()) } else { self.cancel_orders(&deactivated).await }
    }

    async fn store_snapshot(&self, page: &[Customer], begun: DateTime<Utc>) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::refill_customers(connection, page, begun)).await?)
    }

    async fn finish_snapshot(&self, begun: DateTime<Utc>) -> Result<(), Error> {
        run!(self.0.database, connection => db::delete_other_customers(connection, begun)).await?;
        // The events of earlier deactivations are behind the feed's end, so the rows are checked instead.
        let stranded = run!(self.0.database, connection => db::stranded_customers(connection)).await?;
        self.cancel_orders(&stranded).await
    }
}

impl CustomersReplica {
    /// Cancels the open orders of those of these customers who are deactivated. A shipped order is delivered.
    async fn cancel_orders(&self, customers: &[Uuid]) -> Result<(), Error> {
        let stranded = run!(self.0.database, connection => db::stranded_orders(connection, customers)).await?;
        let cancelled = Event::Cancelled { reason: Some(CUSTOMER_DEACTIVATED.to_owned()) };
        for order in stranded {
            let outcome = if order.shipped {
                "shipped"
            } else {
                match take_step(&self.0, &Caller::default(), order.id, &cancelled, |_| Ok(())).await {
                    Ok(_) => "cancelled",
                    // A request was faster: the order is shipped, or closed.
                    Err(Error::InvalidTransition(_)) => "shipped",
                    Err(error) => return Err(error),
                }
            };
            tracing::warn!(order.id = %order.id, outcome, "the customer of an open order is deactivated");
            metrics::counter!("orders_of_deactivated_customers_total", "outcome" => outcome).increment(1);
        }
        Ok(())
    }
}
