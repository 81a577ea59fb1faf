//! The replica of the open orders: kept up for as long as the service runs, and tended on command.

use std::convert::Infallible;
use std::process::ExitCode;

pub use chassis::events::consumer::Command;
use chassis::events::consumer::{Feed, Source, keep_up, tend};
use shared_db::{Database, alone};

use super::inbox::OpenOrdersInbox;

/// The name of the lock that the consumer holds.
const CONSUMER: &str = "users: consumer of orders' events";

/// Keeps the replica up with the events of orders, for ever, in one process of the service at a time.
pub async fn follow(database: Database, feed: Feed, source: Source) -> Infallible {
    let inbox = OpenOrdersInbox(database);
    alone(&inbox.0, CONSUMER, || keep_up(&inbox, &feed, &source, "users")).await
}

/// Does what `users replica` is told.
///
/// # Errors
/// What kept it from being done.
pub async fn run(database: Database, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    tend(&OpenOrdersInbox(database), feed, command).await
}
