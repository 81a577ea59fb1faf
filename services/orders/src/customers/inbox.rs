//! What orders makes of the events of users: its replica of the customers, and an end to open orders of those who were
//! deactivated meanwhile.

use axum::http::StatusCode;
use chassis::events::consumer::{Feed, Received, Replica};
use chassis::events::progress::Progress;
use serde::Deserialize;
use shared_db::run;
use uuid::Uuid;

use super::Customer;
use super::http::Page;
use crate::App;
use crate::db::cursors::{FEED, find_cursor};
use crate::db::customers as db;
use crate::domain::Event;
use crate::error::Error;
use crate::step::take_step;

/// Types of users' events that say how a user is now.
const TYPES: [&str; 4] = ["user.registered.v1", "user.changed.v1", "user.deactivated.v1", "user.reactivated.v1"];
/// Why an order is cancelled whose customer was deactivated.
const CUSTOMER_DEACTIVATED: &str = "customer-deactivated";

/// Brings the replica on.
#[derive(Clone)]
pub struct CustomersInbox(pub App);

/// What orders reads of a user's event; fields it does not know are none of its business.
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

impl Replica for CustomersInbox {
    type Thing = Customer;
    type Error = Error;
    const THINGS: &'static str = "customers";

    fn read(event: &Received) -> Result<Option<Customer>, String> {
        match &*event.r#type {
            "" => Err("it does not say what type of event it is".to_owned()),
            known if TYPES.contains(&known) => {
                let Data { id, name, status, version } = event.read().map_err(|error| error.to_string())?;
                let status = match status {
                    Status::Active => "active",
                    Status::Deactivated => "deactivated",
                };
                Ok(Some(Customer { id, name, status: status.to_owned(), version }))
            }
            _ => Ok(None),
        }
    }

    fn version(thing: &Customer) -> (Uuid, i64) {
        (thing.id, thing.version)
    }

    fn is_refusal(error: &Error) -> bool {
        matches!(error, Error::Database(error) if !error.is_unavailable())
    }

    async fn cursor(&self) -> Result<Option<String>, Error> {
        Ok(run!(self.0.database, connection => find_cursor(connection, FEED)).await?)
    }

    async fn take_in(&self, customers: &[Customer], cursor: Option<&str>) -> Result<(), Error> {
        // Stores the customers, then ends the orders of those who are deactivated, then notes the cursor.
        //
        // In this order: an order that is being placed holds its customer's row, so that it is either committed before the
        // row changes, and found here, or sees that the customer is deactivated, and is refused. And the cursor comes last, so
        // that a crash in between has all of it done again.
        let deactivated: Vec<Uuid> =
            customers.iter().filter(|customer| customer.status == "deactivated").map(|customer| customer.id).collect();
        if deactivated.is_empty() {
            return self.store(customers, cursor).await;
        }
        self.store(customers, None).await?;
        self.cancel_orders(&deactivated).await?;
        self.store(&[], cursor).await
    }

    async fn park(&self, event: &Received, error: &str) -> Result<(), Error> {
        let (id, r#type, data) = (&event.id, &event.r#type, &event.data);
        Ok(run!(self.0.database, connection => db::park_event(connection, id, r#type, data, error)).await?)
    }

    async fn parked(&self) -> Result<Vec<Received>, Error> {
        Ok(run!(self.0.database, connection => db::parked_events(connection)).await?)
    }

    async fn unpark(&self, id: &str) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::unpark_event(connection, id)).await?)
    }

    async fn rebuild(&self, feed: &Feed) -> Result<u64, Error> {
        // Where snapshot and events both tell of a customer, the version decides.
        let database = &self.0.database;
        let end = feed.end().await?;
        let begun = run!(database, connection => db::now(connection)).await?;
        let progress = Progress::new("customers");
        let mut cursor = Some(String::new());
        let mut count = 0;
        while let Some(after) = cursor {
            let page = feed.http().get(&format!("/users?limit=100{after}")).await?;
            if page.status != StatusCode::OK {
                return Err(page.unexpected().into());
            }
            cursor = page.cursor("cursor").map(|cursor| format!("&cursor={cursor}"));
            let customers: Vec<Customer> = page.json::<Page>()?.items.into_iter().map(Customer::from).collect();
            run!(database, connection => db::refresh_customers(connection, &customers, begun)).await?;
            count += customers.len() as u64;
            progress.at(count);
        }
        run!(database, connection => db::forget_others(connection, begun)).await?;
        // Deactivations of before come by no event any more.
        let stranded = run!(database, connection => db::stranded_customers(connection)).await?;
        self.cancel_orders(&stranded).await?;
        run!(database, connection => db::store_customers(connection, &[], Some(&end))).await?;
        Ok(count)
    }
}

impl CustomersInbox {
    async fn store(&self, customers: &[Customer], cursor: Option<&str>) -> Result<(), Error> {
        Ok(run!(self.0.database, connection => db::store_customers(connection, customers, cursor)).await?)
    }

    /// Ends the open orders of those of these customers who are deactivated. What has been shipped arrives.
    pub(super) async fn cancel_orders(&self, customers: &[Uuid]) -> Result<(), Error> {
        let stranded = run!(self.0.database, connection => db::stranded_orders(connection, customers)).await?;
        let cancelled = Event::Cancelled { reason: Some(CUSTOMER_DEACTIVATED.to_owned()) };
        for order in stranded {
            let outcome = if order.shipped {
                "shipped"
            } else {
                match take_step(&self.0, order.id, &cancelled, |_| Ok(())).await {
                    Ok(_) => "cancelled",
                    // Somebody has taken the order on meanwhile: it is shipped, or over.
                    Err(Error::InvalidTransition(_)) => "shipped",
                    Err(error) => return Err(error),
                }
            };
            tracing::warn!(order.id = %order.id, outcome, "an open order's customer is deactivated");
            metrics::counter!("orders_of_deactivated_customers_total", "outcome" => outcome).increment(1);
        }
        Ok(())
    }
}
