//! The replica of the open orders: filled from a snapshot, kept up by events, filled anew on command.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::StatusCode;
use chassis::consumer::{Feed, Inbox, Source};
use chassis::progress::Progress;
use chassis::remote::RemoteError;
use chassis::request::chain;
use clap::Subcommand;
use serde::Deserialize;
use shared_db::{Database, Settle, alone};

use super::Order;
use super::inbox::{Data, OpenOrdersInbox};
use crate::db::open_orders as db;
use crate::error::Error;

/// The pause after a snapshot that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What `users replica` is to do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Fills the replica of the open orders anew from a snapshot of orders, while the service goes on
    Rebuild,
    /// Tries the events again that could not be applied. Exit code 1 if some still cannot
    Retry,
}

/// Why a snapshot came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Orders could not be asked.
    #[error(transparent)]
    Orders(#[from] RemoteError),
    /// It could not be stored.
    #[error(transparent)]
    Users(#[from] Error),
}

impl From<shared_db::DatabaseError> for SnapshotError {
    fn from(error: shared_db::DatabaseError) -> Self {
        Self::Users(error.into())
    }
}

/// Keeps the replica up with the events of orders, for ever, in one process of the service at a time.
pub async fn follow(database: Database, feed: Feed, source: Source) -> Infallible {
    let inbox = OpenOrdersInbox(database);
    let work = async || {
        fill(&inbox, &feed).await;
        feed.follow_via(&source, "users", &inbox).await
    };
    alone(&inbox.0, CONSUMER, work).await
}

/// The name of the lock that the consumer holds.
pub const CONSUMER: &str = "users: consumer of orders' events";

/// Fills the replica from a snapshot if nothing has been read yet, however long that takes.
pub async fn fill(inbox: &OpenOrdersInbox, feed: &Feed) {
    loop {
        let filled = match inbox.cursor().await {
            Ok(Some(_)) => return,
            Ok(None) => rebuild(inbox, feed).await.map(drop),
            Err(error) => Err(error.into()),
        };
        match filled {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the replica of the open orders cannot be filled at this moment");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A page of orders.
#[derive(Deserialize)]
struct Page {
    items: Vec<Data>,
}

/// Fills the replica from a snapshot: how many orders are open. Requests and events go on meanwhile.
///
/// The end of the feed is asked for first: what is committed later comes as an event, and what was before is in the
/// snapshot. Where both tell of an order, the version decides. An open order only ever goes from one of the lists to a
/// later one, so none is missed between them.
async fn rebuild(inbox: &OpenOrdersInbox, feed: &Feed) -> Result<u64, SnapshotError> {
    let database = &inbox.0;
    let end = feed.end().await?;
    let mut connection = database.connection().await?;
    let begun = db::now(&mut connection).await.settle(connection)?;
    let progress = Progress::new("open orders");
    let mut count = 0;
    for status in ["placed", "paid", "shipped"] {
        let mut cursor = Some(String::new());
        while let Some(after) = cursor {
            let page = feed.http().get(&format!("/orders?status={status}&limit=100{after}")).await?;
            if page.status != StatusCode::OK {
                return Err(page.unexpected().into());
            }
            cursor = page.cursor("cursor").map(|cursor| format!("&cursor={cursor}"));
            let orders: Vec<Order> = page.json::<Page>()?.items.into_iter().map(Order::from).collect();
            let mut connection = database.connection().await?;
            db::refresh_orders(&mut connection, &orders, begun).await.settle(connection)?;
            count += orders.len() as u64;
            progress.at(count);
        }
    }
    let mut connection = database.connection().await?;
    db::close_others(&mut connection, begun).await.settle(connection)?;
    let mut connection = database.connection().await?;
    db::store_orders(&mut connection, &[], Some(&end)).await.settle(connection)?;
    Ok(count)
}

/// Does what `users replica` is told.
///
/// # Errors
/// What kept it from being done.
pub async fn run(database: Database, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    let inbox = OpenOrdersInbox(database);
    match command {
        Command::Rebuild => {
            let count = rebuild(&inbox, feed).await.map_err(|error| chain(&error))?;
            println!("{count} open orders, as orders has them");
            Ok(ExitCode::SUCCESS)
        }
        Command::Retry => {
            let (applied, parked) = inbox.retry().await.map_err(|error| chain(&error))?;
            println!("{applied} events applied, {parked} parked still");
            Ok(ExitCode::from(u8::from(parked > 0)))
        }
    }
}
