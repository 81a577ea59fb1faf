//! The port to users: it finds the customers of orders, and decides whether a user may order.

mod grpc;
mod http;
mod remote;
pub mod replica;
mod shadow;

use chassis::events::ReadAfter;
use chassis::http::page::Rows;
use chassis::remote::Remote;
use chrono::{DateTime, Utc};
use clap::ValueEnum;
use shared_db::{Database, DatabaseError, change, run};
use uuid::Uuid;

use crate::db::customers::{find_customer, store_customers};
use crate::db::events::events_until;
use crate::db::lists::{self, Filter};
use crate::db::orders::{self, IdempotencyKey, Placed, Replay};
use crate::db::rows::Found;
use crate::domain::{Customer, Lookup, Order};
use crate::error::Error;
use crate::events::{Announcement, Logged};
pub use remote::Users;
use shadow::Shadow;

/// The dial `CUSTOMERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `customers` in the service's own database. Statements that read orders join it, and a trigger
    /// checks it when an order is placed.
    Local,
    /// The users service, called by HTTP after an order is read and before an order is placed.
    Http,
    /// The users service, called by gRPC at the same points.
    Grpc,
}

/// The dial `CUSTOMERS_SHADOW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShadowVia {
    /// The users service, called by HTTP.
    Http,
    /// The users service, called by gRPC.
    Grpc,
}

/// The port, as the dials set it. It runs the statements that may join the view.
#[derive(Debug, Clone)]
pub struct Customers {
    /// Called under every dial for a user whom the view does not have yet.
    users: Users,
    in_view: bool,
    shadow: Option<Shadow>,
}

impl Customers {
    /// The port that reads the view. It calls users only for a user whom a replica behind the view does not have yet.
    pub fn local(users: Users) -> Self {
        Self { users, in_view: true, shadow: None }
    }

    /// The port that calls users.
    pub fn remote(users: Users) -> Self {
        Self { users, in_view: false, shadow: None }
    }

    /// Compares the view with what `users` says.
    #[must_use]
    pub fn shadowed_by(self, users: Users) -> Self {
        Self { shadow: Some(Shadow::new(users)), ..self }
    }

    /// The services that the port calls.
    pub fn remotes(&self) -> Vec<Remote> {
        let users = (!self.in_view).then(|| self.users.remote());
        users.into_iter().chain(self.shadow.as_ref().map(Shadow::remote)).cloned().collect()
    }

    /// The order with this id, with the changes of `seen`. [`Customers::of`] completes it.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_order(&self, database: &Database, id: Uuid, seen: ReadAfter) -> Result<Option<Found>, DatabaseError> {
        run!(database, seen.transaction(), connection => orders::find_order(connection, id, self.in_view)).await
    }

    /// The newest `limit` orders that are older than `before`, as far as a page has room for them. [`Customers::of_all`]
    /// completes them.
    ///
    /// # Errors
    /// The database's.
    pub async fn list_orders(
        &self,
        database: &Database,
        filter: Filter,
        before: Option<Uuid>,
        limit: i64,
        seen: ReadAfter,
    ) -> Result<Rows<Found>, DatabaseError> {
        let (seen, in_view) = (seen.transaction(), self.in_view);
        run!(database, seen, connection => lists::list_orders(connection, filter, before, limit, in_view)).await
    }

    /// The order that was placed with this idempotency key.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_replay(&self, database: &Database, key: &str) -> Result<Option<Replay>, DatabaseError> {
        run!(database, connection => orders::find_replay(connection, key, self.in_view)).await
    }

    /// An order's events up to `moment`, oldest first, and what the join found of its present customer.
    ///
    /// # Errors
    /// The database's.
    pub async fn events_until(
        &self,
        database: &Database,
        order_id: Uuid,
        moment: DateTime<Utc>,
        seen: ReadAfter,
    ) -> Result<(Vec<Logged>, Option<Customer>), DatabaseError> {
        run!(database, seen.transaction(), connection => events_until(connection, order_id, moment, self.in_view)).await
    }

    /// Completes an order with its customer; `joined` is what its statement found.
    pub async fn of(&self, user_id: Uuid, joined: Option<Customer>) -> Lookup {
        self.of_all(vec![(user_id, joined)]).await.pop().unwrap_or(Lookup::Unavailable)
    }

    /// [`Customers::of`] for a page of orders, in their order, by one call of users at most.
    pub async fn of_all(&self, orders: Vec<(Uuid, Option<Customer>)>) -> Vec<Lookup> {
        if !self.in_view {
            return self.users.find(&orders.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
        }
        if let Some(shadow) = &self.shadow {
            shadow.compare(&orders);
        }
        orders.into_iter().map(|(_, joined)| joined.into()).collect()
    }

    /// Places an order for a user who may order: inserts the order and its event.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::UserDeactivated`], [`Error::CustomersUnavailable`], and the database's.
    pub async fn place(
        &self,
        database: &Database,
        order: &Order,
        announcement: &Announcement,
        key: Option<&IdempotencyKey>,
    ) -> Result<Placed, Error> {
        let admitted = self.admit(order.user_id).await?;
        // The order's rule locks its user's row.
        let (user_id, in_view) = (order.user_id, self.in_view);
        let insert =
            || change!(database, user_id, connection => orders::insert_order(connection, order, announcement, key, in_view));
        let placed = match insert().await.map_err(Error::from) {
            Err(Error::CustomerNotKnownYet) => {
                self.introduce(database, order.user_id, admitted.clone()).await?;
                insert().await?
            }
            placed => placed?,
        };
        let (position, joined) = match placed {
            Placed::KeyUsed => return Ok(Placed::KeyUsed),
            // The rule has found the user. The join has not: it sees only what was committed before its statement began.
            Placed::New(position, None) if self.in_view => {
                match run!(database, connection => find_customer(connection, order.user_id)).await {
                    Ok(found) => (position, found),
                    // The order is committed, so it is answered all the same.
                    Err(error) => {
                        tracing::warn!(order.id = %order.id, %error, "a new order is shown without its customer");
                        return Ok(Placed::New(position, None));
                    }
                }
            }
            Placed::New(position, joined) => (position, joined),
        };
        if let Some(shadow) = &self.shadow {
            shadow.compare(&[(order.user_id, joined.clone())]);
        }
        Ok(Placed::New(position, admitted.or(joined)))
    }

    /// Asks users whether the user may order. `None` under the dial `local`, where the statement itself checks that.
    async fn admit(&self, user_id: Uuid) -> Result<Option<Customer>, Error> {
        if self.in_view {
            return Ok(None);
        }
        match self.ask(user_id).await? {
            customer if customer.status != "active" => Err(Error::UserDeactivated),
            customer => Ok(Some(customer)),
        }
    }

    /// Inserts a user into the replica whose first event has not arrived yet.
    async fn introduce(&self, database: &Database, user_id: Uuid, admitted: Option<Customer>) -> Result<(), Error> {
        let customers = [match admitted {
            Some(customer) => customer,
            None => self.ask(user_id).await?,
        }];
        Ok(change!(database, user_id, connection => store_customers(connection, &customers)).await?)
    }

    async fn ask(&self, user_id: Uuid) -> Result<Customer, Error> {
        self.users.find_one(user_id).await?.ok_or(Error::UnknownUser)
    }
}
