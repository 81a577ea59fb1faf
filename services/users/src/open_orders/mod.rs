//! The port to orders: does a user have open orders?

use clap::ValueEnum;
use shared_db::{Database, DatabaseError, Settle};

use crate::db::users::{Deactivation, deactivate_user};
use crate::domain::User;
use crate::events::Event;

/// The dial `OPEN_ORDERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `open_orders` in the service's own database.
    Local,
}

/// The port as the dial has set it.
#[derive(Debug, Clone)]
pub enum OpenOrders {
    /// See [`Via::Local`].
    Local,
}

impl From<Via> for OpenOrders {
    fn from(via: Via) -> Self {
        match via {
            Via::Local => Self::Local,
        }
    }
}

impl OpenOrders {
    /// Deactivates a user who has no open orders: stores `deactivated` over the version before it, and announces it.
    ///
    /// # Errors
    /// The database's. As long as orders shares it, its rule `users_no_open_orders` may refuse too.
    pub async fn deactivate(
        &self,
        database: &Database,
        deactivated: &User,
        event: &Event,
    ) -> Result<Deactivation, DatabaseError> {
        match self {
            // One statement looks and writes. It sees what was committed before it began; the trigger sees the rest.
            Self::Local => {
                let mut connection = database.connection().await?;
                deactivate_user(&mut connection, deactivated, event).await.settle(connection)
            }
        }
    }
}
