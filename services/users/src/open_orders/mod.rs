//! The port to orders: does a user have open orders?

mod http;
pub mod replica;
mod shadow;

use chassis::events::Position;
use chassis::remote::{Http, Remote};
use clap::ValueEnum;
use shared_db::{Database, change};

use crate::db::users::{Deactivation, deactivate_user, update_user};
use crate::domain::User;
use crate::error::Error;
use crate::events::Announcement;
use http::count_open_orders;
use shadow::Shadow;

/// The dial `OPEN_ORDERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `open_orders` in the service's own database.
    Local,
    /// The orders service, called by HTTP before the user is changed.
    Http,
}

/// The dial `OPEN_ORDERS_SHADOW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShadowVia {
    /// The orders service, called by HTTP.
    Http,
}

/// The port, as the dials set it.
#[derive(Debug, Clone, Default)]
pub struct OpenOrders {
    remote: Option<Http>,
    shadow: Option<Shadow>,
}

impl OpenOrders {
    /// The port that reads the view alone.
    pub fn local() -> Self {
        Self::default()
    }

    /// The port that calls orders.
    pub fn remote(orders: Http) -> Self {
        Self { remote: Some(orders), shadow: None }
    }

    /// Compares the view with what orders itself says.
    #[must_use]
    pub fn shadowed_by(self, orders: Http) -> Self {
        Self { shadow: Some(Shadow::new(orders)), ..self }
    }

    /// The services that the port calls.
    pub fn remotes(&self) -> Vec<Remote> {
        let shadow = self.shadow.as_ref().map(Shadow::remote);
        self.remote.as_ref().map(Http::remote).into_iter().chain(shadow).cloned().collect()
    }

    /// Deactivates a user who has no open orders: writes `deactivated` over the previous version, and its event. Returns the
    /// event's position in the log; `None` if another request has changed the user since.
    ///
    /// # Errors
    /// [`Error::OpenOrders`], [`Error::OrdersUnavailable`], and the database's. While orders shares the database, its rule
    /// `users_no_open_orders` can refuse too, whatever the dial.
    pub async fn deactivate(
        &self,
        database: &Database,
        deactivated: &User,
        announcement: &Announcement,
    ) -> Result<Option<Position>, Error> {
        if let Some(orders) = &self.remote {
            if count_open_orders(orders, deactivated.id).await? > 0 {
                return Err(Error::OpenOrders);
            }
            return Ok(
                change!(database, deactivated.id, connection => update_user(connection, deactivated, announcement)).await?
            );
        }
        if let Some(shadow) = &self.shadow {
            shadow.compare(database, deactivated.id);
        }
        // One statement reads the view and writes. It sees what was committed before it began; the trigger sees the rest.
        let id = deactivated.id;
        match change!(database, id, connection => deactivate_user(connection, deactivated, announcement)).await? {
            Deactivation::Done(position) => Ok(Some(position)),
            Deactivation::Changed => Ok(None),
            Deactivation::OpenOrders => Err(Error::OpenOrders),
        }
    }
}
