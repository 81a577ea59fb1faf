//! The port to orders: does a user have open orders?

use axum::http::StatusCode;
use chassis::remote::{Http, Remote, RemoteError};
use clap::ValueEnum;
use serde::Deserialize;
use shared_db::{Database, Settle};
use uuid::Uuid;

use crate::db::users::{Deactivation, deactivate_user, update_user};
use crate::domain::User;
use crate::error::Error;
use crate::events::Event;

/// The dial `OPEN_ORDERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `open_orders` in the service's own database.
    Local,
    /// The orders service, asked over HTTP before the user is changed.
    Http,
}

/// The port as the dial has set it.
#[derive(Debug, Clone)]
pub enum OpenOrders {
    /// See [`Via::Local`].
    Local,
    /// See [`Via::Http`].
    Http(Http),
}

/// What users reads of the answer.
#[derive(Deserialize)]
struct Count {
    open_count: i64,
}

impl OpenOrders {
    /// The neighbours that are asked.
    pub fn remotes(&self) -> Vec<Remote> {
        match self {
            Self::Local => Vec::new(),
            Self::Http(orders) => vec![orders.remote().clone()],
        }
    }

    /// Deactivates a user who has no open orders: stores `deactivated` over the version before it, and announces it.
    ///
    /// # Errors
    /// The database's, and [`Error::OrdersUnavailable`]. As long as orders shares the database, its rule
    /// `users_no_open_orders` may refuse too.
    pub async fn deactivate(&self, database: &Database, deactivated: &User, event: &Event) -> Result<Deactivation, Error> {
        match self {
            // One statement looks and writes. It sees what was committed before it began; the trigger sees the rest.
            Self::Local => {
                let mut connection = database.connection().await?;
                Ok(deactivate_user(&mut connection, deactivated, event).await.settle(connection)?)
            }
            Self::Http(orders) => {
                if count_open_orders(orders, deactivated.id).await? > 0 {
                    return Ok(Deactivation::OpenOrders);
                }
                let mut connection = database.connection().await?;
                let done = update_user(&mut connection, deactivated, event).await.settle(connection)?;
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
