//! A service's own copy of another one's things: filled from a snapshot, kept up by events, filled anew on command.

use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use uuid::Uuid;

use super::{Feed, Inbox, Received, Source, storable};
use crate::http::request::chain;

/// The pause after a snapshot that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What a service can be told to do with its replica.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Fills the replica anew from a snapshot of the other service, while this one goes on
    Rebuild,
    /// Tries the events again that could not be applied. Exit code 1 if some still cannot
    Retry,
}

/// A copy of another service's things. Every event says all of a thing, and carries its version.
pub trait Replica: Send + Sync {
    /// What there is a copy of.
    type Thing: Send + Sync;
    /// Why something could not be done.
    type Error: std::error::Error + Send + Sync + 'static;
    /// What the things are called, many of them.
    const THINGS: &'static str;

    /// The thing after an event; `None` if the event says nothing of one.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(event: &Received) -> Result<Option<Self::Thing>, String>;

    /// Id and version of a thing.
    fn version(thing: &Self::Thing) -> (Uuid, i64);

    /// Whether the error is one that trying again later does not help.
    fn is_refusal(error: &Self::Error) -> bool;

    /// Where the feed goes on; `None` if nothing has been read of it.
    fn cursor(&self) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Stores those of the things that are newer than what is known, each of which is there once, does what follows from
    /// that, and then stores the cursor, if there is one.
    fn take_in(&self, things: &[Self::Thing], cursor: Option<&str>) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Keeps an event that cannot be applied, and why.
    fn park(&self, event: &Received, error: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The events that are kept.
    fn parked(&self) -> impl Future<Output = Result<Vec<Received>, Self::Error>> + Send;

    /// Keeps an event no longer.
    fn unpark(&self, id: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Fills the replica from a snapshot of the other service: how many things there are. Requests and events go on
    /// meanwhile, so the end of the feed is asked for first: what is committed later comes as an event, and what was before
    /// is in the snapshot.
    fn rebuild(&self, feed: &Feed) -> impl Future<Output = Result<u64, Self::Error>> + Send;
}

impl<R: Replica> Inbox for R {
    type Error = R::Error;

    async fn cursor(&self) -> Result<Option<String>, R::Error> {
        Replica::cursor(self).await
    }

    async fn apply(&self, events: &[Received], cursor: Option<&str>) -> Result<(), R::Error> {
        // Of each thing the newest only: those before it say nothing more.
        let mut newest: HashMap<Uuid, (R::Thing, &Received)> = HashMap::new();
        for event in events {
            match R::read(event) {
                Ok(Some(thing)) => {
                    let (id, version) = R::version(&thing);
                    if newest.get(&id).is_none_or(|(known, _)| R::version(known).1 < version) {
                        newest.insert(id, (thing, event));
                    }
                }
                Ok(None) => {}
                Err(error) => park(self, event, &error).await?,
            }
        }
        let (things, sources): (Vec<_>, Vec<_>) = newest.into_values().unzip();
        match self.take_in(&things, cursor).await {
            Err(error) if R::is_refusal(&error) => {
                // Something in there the database will not have. One by one, to find out what.
                for (thing, source) in things.iter().zip(sources) {
                    match self.take_in(std::slice::from_ref(thing), None).await {
                        Err(error) if R::is_refusal(&error) => park(self, source, &chain(&error)).await?,
                        done => done?,
                    }
                }
                self.take_in(&[], cursor).await
            }
            done => done,
        }
    }
}

async fn park<R: Replica>(replica: &R, event: &Received, error: &str) -> Result<(), R::Error> {
    // It may quote what could not be read.
    let error = &*storable(error);
    tracing::error!(event.id = event.id, event.r#type = event.r#type, error, "an event cannot be applied, and is parked");
    replica.park(event, error).await
}

/// Fills the replica if nothing has been read yet, however long that takes, and then keeps it up with the events that come
/// from `source`, for ever, as a member of the consumer group `group` where there is a broker.
pub async fn keep_up<R: Replica>(replica: &R, feed: &Feed, source: &Source, group: &str) -> Infallible {
    while let Err(error) = fill(replica, feed).await {
        tracing::warn!(of = R::THINGS, error = chain(&error), "the replica cannot be filled at this moment");
        tokio::time::sleep(PAUSE).await;
    }
    feed.follow_via(source, group, replica).await
}

async fn fill<R: Replica>(replica: &R, feed: &Feed) -> Result<(), R::Error> {
    if Replica::cursor(replica).await?.is_none() {
        replica.rebuild(feed).await?;
    }
    Ok(())
}

/// Does what a service was told to do with its replica.
///
/// # Errors
/// What kept it from being done.
pub async fn tend<R: Replica>(replica: &R, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Rebuild => {
            let count = replica.rebuild(feed).await.map_err(|error| chain(&error))?;
            println!("{count} {}, as {} has them", R::THINGS, feed.http().remote().name());
            Ok(ExitCode::SUCCESS)
        }
        Command::Retry => {
            let (applied, parked) = retry(replica).await.map_err(|error| chain(&error))?;
            println!("{applied} events applied, {parked} parked still");
            Ok(ExitCode::from(u8::from(parked > 0)))
        }
    }
}

/// Tries the parked events again: how many were applied, and how many are parked still.
async fn retry<R: Replica>(replica: &R) -> Result<(usize, usize), R::Error> {
    let mut applied = 0;
    for event in replica.parked().await? {
        let done = match R::read(&event) {
            Ok(thing) => replica.take_in(thing.as_slice(), None).await.map_err(|error| chain(&error)),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                replica.unpark(&event.id).await?;
                applied += 1;
            }
            Err(error) => park(replica, &event, &error).await?,
        }
    }
    Ok((applied, replica.parked().await?.len()))
}
