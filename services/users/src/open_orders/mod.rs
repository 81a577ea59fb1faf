//! The port to orders: does a user have open orders?

pub mod replica;
mod shadow;

use axum::http::StatusCode;
use chassis::remote::{Http, Remote, RemoteError};
use clap::ValueEnum;
use serde::Deserialize;
use shared_db::{Database, run};
use uuid::Uuid;

use crate::db::users::{Deactivation, deactivate_user, update_user};
use crate::domain::User;
use crate::error::Error;
use crate::events::Announcement;
use shadow::Shadow;

/// The dial `OPEN_ORDERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `open_orders` in the service's own database.
    Local,
    /// The orders service, asked by HTTP before the user is changed.
    Http,
}

/// The dial `OPEN_ORDERS_SHADOW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShadowVia {
    /// The orders service, asked by HTTP.
    Http,
}

/// An order, as users sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The order's id.
    pub id: Uuid,
    /// Who placed it.
    pub user_id: Uuid,
    /// Whether it is placed, paid or shipped.
    pub is_open: bool,
    /// The order's version.
    pub version: i64,
}

/// The port as the dials have set it.
#[derive(Debug, Clone, Default)]
pub struct OpenOrders {
    remote: Option<Http>,
    shadow: Option<Shadow>,
}

/// What users reads of the answer.
#[derive(Deserialize)]
struct Count {
    open_count: i64,
}

impl OpenOrders {
    /// The port by the view alone.
    pub fn local() -> Self {
        Self::default()
    }

    /// The port by calls to orders.
    pub fn remote(orders: Http) -> Self {
        Self { remote: Some(orders), shadow: None }
    }

    /// Compares the answers with what orders itself says.
    #[must_use]
    pub fn shadowed_by(self, orders: Http) -> Self {
        Self { shadow: Some(Shadow::new(orders)), ..self }
    }

    /// The neighbours that are asked.
    pub fn remotes(&self) -> Vec<Remote> {
        let shadow = self.shadow.as_ref().map(Shadow::remote);
        self.remote.as_ref().map(Http::remote).into_iter().chain(shadow).cloned().collect()
    }

    /// Deactivates a user who has no open orders: stores `deactivated` over the version before it, and announces it.
    ///
    /// # Errors
    /// The database's, and [`Error::OrdersUnavailable`]. As long as orders shares the database, its rule
    /// `users_no_open_orders` may refuse too.
    pub async fn deactivate(
        &self,
        database: &Database,
        deactivated: &User,
        announcement: &Announcement,
    ) -> Result<Deactivation, Error> {
        match &self.remote {
            // One statement looks and writes. It sees what was committed before it began; the trigger sees the rest.
            None => {
                if let Some(shadow) = &self.shadow {
                    shadow.compare(database, deactivated.id);
                }
                Ok(run!(database, connection => deactivate_user(connection, deactivated, announcement)).await?)
            }
            Some(orders) => {
                if count_open_orders(orders, deactivated.id).await? > 0 {
                    return Ok(Deactivation::OpenOrders);
                }
                let done = run!(database, connection => update_user(connection, deactivated, announcement)).await?;
                Ok(if done { Deactivation::Done } else { Deactivation::Changed })
            }
        }
    }
}

async fn count_open_orders(orders: &Http, user_id: Uuid) -> Result<i64, RemoteError> {
    let answer = orders.get(&format!("/open-orders?user_id={user_id}")).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.json::<Count>()?.open_count),
        _ => Err(answer.unexpected()),
    }
}
