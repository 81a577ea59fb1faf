//! The log `user_events`, and the tables `users_cursors` and `users_parked_events`.

use shared_db::{Ending, Transaction, run};
use sqlx::PgConnection;

use crate::App;
use crate::error::Error;
use crate::events::TYPES;

/// The end of the log on a standby.
pub fn end_on_standby(standby: &mut PgConnection) -> Ending<'_> {
    Box::pin(async move { end_of_log(standby).await.map(|end| Transaction { epoch: end.epoch, number: end.xid }) })
}

chassis::event_store!(App, run, Error, "user", "users", TYPES);
