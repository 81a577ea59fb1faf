//! What orders makes of the events of users: its replica of the customers, and an end to open orders of those who were
//! deactivated meanwhile.

use std::collections::HashMap;

use chassis::consumer::{Inbox, Received, storable};
use chassis::request::chain;
use serde::Deserialize;
use shared_db::Settle;
use uuid::Uuid;

use super::Customer;
use crate::App;
use crate::db::cursors::{FEED, find_cursor};
use crate::db::customers as db;
use crate::domain::Event;
use crate::error::Error;
use crate::step::take_step;

/// Types of users' events that say how a user is now.
const TYPES: [&str; 4] = ["user.registered.v1", "user.changed.v1", "user.deactivated.v1", "user.reactivated.v1"];
/// Why an order is cancelled whose customer was deactivated.
pub const CUSTOMER_DEACTIVATED: &str = "customer-deactivated";

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

/// The customer after an event, if the event is one of those; why it cannot be read, if so.
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

impl Inbox for CustomersInbox {
    type Error = Error;

    async fn cursor(&self) -> Result<Option<String>, Error> {
        let mut connection = self.0.database.connection().await?;
        Ok(find_cursor(&mut connection, FEED).await.settle(connection)?)
    }

    async fn apply(&self, events: &[Received], cursor: Option<&str>) -> Result<(), Error> {
        // Of each customer the newest only: an event says all, so those before it say nothing more.
        let mut newest: HashMap<Uuid, (Customer, &Received)> = HashMap::new();
        for event in events {
            match read(event) {
                Ok(Some(customer)) => {
                    let known = newest.get(&customer.id);
                    if known.is_none_or(|(known, _)| known.version < customer.version) {
                        newest.insert(customer.id, (customer, event));
                    }
                }
                Ok(None) => {}
                Err(error) => self.park(event, &error).await?,
            }
        }
        let (customers, sources): (Vec<_>, Vec<_>) = newest.into_values().unzip();
        match self.take_in(&customers, cursor).await {
            Err(Error::Database(error)) if !error.is_unavailable() => {
                // Something in there the database will not have. One by one, to find out what.
                for (customer, source) in customers.into_iter().zip(sources) {
                    match self.take_in(&[customer], None).await {
                        Err(Error::Database(error)) if !error.is_unavailable() => {
                            self.park(source, &chain(&error)).await?;
                        }
                        done => done?,
                    }
                }
                self.take_in(&[], cursor).await
            }
            done => done,
        }
    }
}

impl CustomersInbox {
    /// Stores the customers, then ends the orders of those who are deactivated, then notes the cursor.
    ///
    /// In this order: an order that is being placed holds its customer's row, so that it is either committed before the
    /// row changes, and found here, or sees that the customer is deactivated, and is refused. And the cursor comes last, so
    /// that a crash in between has all of it done again.
    async fn take_in(&self, customers: &[Customer], cursor: Option<&str>) -> Result<(), Error> {
        let deactivated: Vec<Uuid> =
            customers.iter().filter(|customer| customer.status == "deactivated").map(|customer| customer.id).collect();
        if deactivated.is_empty() {
            return self.store(customers, cursor).await;
        }
        self.store(customers, None).await?;
        self.cancel_orders(&deactivated).await?;
        self.store(&[], cursor).await
    }

    async fn store(&self, customers: &[Customer], cursor: Option<&str>) -> Result<(), Error> {
        let mut connection = self.0.database.connection().await?;
        Ok(db::store_customers(&mut connection, customers, cursor).await.settle(connection)?)
    }

    /// Ends the open orders of those of these customers who are deactivated. What has been shipped arrives.
    pub(super) async fn cancel_orders(&self, customers: &[Uuid]) -> Result<(), Error> {
        let mut connection = self.0.database.connection().await?;
        let stranded = db::stranded_orders(&mut connection, customers).await.settle(connection)?;
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

    async fn park(&self, event: &Received, error: &str) -> Result<(), Error> {
        // It may quote what could not be read.
        let error = &*storable(error);
        tracing::error!(
            event.id = event.id,
            event.r#type = event.r#type,
            error,
            "an event cannot be applied, and is parked"
        );
        let mut connection = self.0.database.connection().await?;
        let parked = db::park_event(&mut connection, &event.id, &event.r#type, &event.data, error).await;
        Ok(parked.settle(connection)?)
    }

    /// Tries the parked events again: how many were applied, and how many are parked still.
    pub(super) async fn retry(&self) -> Result<(usize, i64), Error> {
        let mut connection = self.0.database.connection().await?;
        let parked = db::parked_events(&mut connection).await.settle(connection)?;
        let mut applied = 0;
        for db::ParkedEvent { id, r#type, data } in parked {
            let event = Received { id, r#type, time: None, data };
            let done = match read(&event) {
                Ok(customer) => self.take_in(customer.as_slice(), None).await.map_err(|error| chain(&error)),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.park(&event, &error).await?;
                continue;
            }
            let mut connection = self.0.database.connection().await?;
            db::unpark_event(&mut connection, &event.id).await.settle(connection)?;
            applied += 1;
        }
        let mut connection = self.0.database.connection().await?;
        Ok((applied, db::count_parked_events(&mut connection).await.settle(connection)?))
    }
}
