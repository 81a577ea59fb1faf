//! The replica of the customers: filled from a snapshot, kept up by events, filled anew on command.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::StatusCode;
use chassis::consumer::{Feed, Inbox, Source};
use chassis::progress::Progress;
use chassis::remote::RemoteError;
use chassis::request::chain;
use clap::Subcommand;
use shared_db::{Settle, alone};

use super::Customer;
use super::http::Page;
use super::inbox::CustomersInbox;
use crate::App;
use crate::db::customers as db;
use crate::error::Error;

/// The pause after a snapshot that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What `orders replica` is to do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Fills the replica of the customers anew from a snapshot of users, while the service goes on
    Rebuild,
    /// Tries the events again that could not be applied. Exit code 1 if some still cannot
    Retry,
}

/// Why a snapshot came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Users could not be asked.
    #[error(transparent)]
    Users(#[from] RemoteError),
    /// It could not be stored.
    #[error(transparent)]
    Orders(#[from] Error),
}

impl From<shared_db::DatabaseError> for SnapshotError {
    fn from(error: shared_db::DatabaseError) -> Self {
        Self::Orders(error.into())
    }
}

/// Keeps the replica up with the events of users, for ever, in one process of the service at a time.
pub async fn follow(app: App, feed: Feed, source: Source) -> Infallible {
    let inbox = CustomersInbox(app);
    let work = async || {
        fill(&inbox, &feed).await;
        feed.follow_via(&source, "orders", &inbox).await
    };
    alone(&inbox.0.database, CONSUMER, work).await
}

/// The name of the lock that the consumer holds.
pub const CONSUMER: &str = "orders: consumer of users' events";

/// Fills the replica from a snapshot if nothing has been read yet, however long that takes.
pub async fn fill(inbox: &CustomersInbox, feed: &Feed) {
    loop {
        let filled = match inbox.cursor().await {
            Ok(Some(_)) => return,
            Ok(None) => rebuild(inbox, feed).await.map(drop),
            Err(error) => Err(error.into()),
        };
        match filled {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the replica of the customers cannot be filled at this moment");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Fills the replica from a snapshot: how many customers there are. Requests and events go on meanwhile.
///
/// The end of the feed is asked for first: what is committed later comes as an event, and what was before is in the
/// snapshot. Where both tell of a customer, the version decides.
async fn rebuild(inbox: &CustomersInbox, feed: &Feed) -> Result<u64, SnapshotError> {
    let database = &inbox.0.database;
    let end = feed.end().await?;
    let mut connection = database.connection().await?;
    let begun = db::now(&mut connection).await.settle(connection)?;
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
        let mut connection = database.connection().await?;
        db::refresh_customers(&mut connection, &customers, begun).await.settle(connection)?;
        count += customers.len() as u64;
        progress.at(count);
    }
    let mut connection = database.connection().await?;
    db::forget_others(&mut connection, begun).await.settle(connection)?;
    // Deactivations of before come by no event any more.
    let mut connection = database.connection().await?;
    let stranded = db::stranded_customers(&mut connection).await.settle(connection)?;
    inbox.cancel_orders(&stranded).await?;
    let mut connection = database.connection().await?;
    db::store_customers(&mut connection, &[], Some(&end)).await.settle(connection)?;
    Ok(count)
}

/// Does what `orders replica` is told.
///
/// # Errors
/// What kept it from being done.
pub async fn run(app: App, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    let inbox = CustomersInbox(app);
    match command {
        Command::Rebuild => {
            let count = rebuild(&inbox, feed).await.map_err(|error| chain(&error))?;
            println!("{count} customers, as users has them");
            Ok(ExitCode::SUCCESS)
        }
        Command::Retry => {
            let (applied, parked) = inbox.retry().await.map_err(|error| chain(&error))?;
            println!("{applied} events applied, {parked} parked still");
            Ok(ExitCode::from(u8::from(parked > 0)))
        }
    }
}
