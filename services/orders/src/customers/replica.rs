//! The replica of the customers: kept up for as long as the service runs, and tended on command.

use std::convert::Infallible;
use std::process::ExitCode;

pub use chassis::events::consumer::Command;
use chassis::events::consumer::{Feed, Source, keep_up, tend};
use shared_db::alone;

use super::inbox::CustomersInbox;
use crate::App;

/// The name of the lock that the consumer holds.
const CONSUMER: &str = "orders: consumer of users' events";

/// Keeps the replica up with the events of users, for ever, in one process of the service at a time.
pub async fn follow(app: App, feed: Feed, source: Source) -> Infallible {
    let inbox = CustomersInbox(app);
    alone(&inbox.0.database, CONSUMER, || keep_up(&inbox, &feed, &source, "orders")).await
}

/// Does what `orders replica` is told.
///
/// # Errors
/// What kept it from being done.
pub async fn run(app: App, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    tend(&CustomersInbox(app), feed, command).await
}
