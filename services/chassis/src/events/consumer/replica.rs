//! A service's own copy of another one's data: filled from a snapshot, updated by events, rebuilt on command.

use std::collections::HashMap;
use std::convert::Infallible;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::feed::Feed;
use super::inbox::{Cursor, Inbox, Received, storable};
use crate::error::chain;
use crate::events::broker::{Broker, Transport};
use crate::events::progress::Progress;
use crate::events::store::EventStore;
use crate::events::versions::count_skipped;
use crate::remote::RemoteError;
use crate::traces;

/// What a service can do with its replica on command.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Fill the replica again from a snapshot of the other service, while this one keeps serving
    Rebuild,
    /// Try the parked events again. Exit code 1 if some still cannot be applied
    Retry,
}

/// A copy of another service's entities. Every event carries an entity's full state and version.
pub trait Replica: Send + Sync {
    /// The service's event tables.
    type Store: EventStore<Error: From<RemoteError>>;
    /// What the replica stores of an entity.
    type Entity: Send + Sync;
    /// What the service reads of an entity, in an event and in a page of the snapshot.
    type Data: DeserializeOwned + Into<Self::Entity> + Send;
    /// The entities' name in messages, in the plural.
    const NAME: &'static str;
    /// The event types that carry an entity. Other types are skipped.
    const TYPES: &'static [&'static str];
    /// The lists of the other service that make up a snapshot, each with a query.
    const SNAPSHOT: &'static [&'static str];

    /// The service's event tables.
    fn store(&self) -> &Self::Store;

    /// Id and version of an entity.
    fn version(entity: &Self::Entity) -> (Uuid, i64);

    /// Whether the database refused the data, so that a later try would fail too.
    fn is_refusal(error: &ErrorOf<Self>) -> bool;

    /// Stores the entities that are newer than the replica's, and does what follows from them. Each entity is there once.
    fn store_newer(&self, entities: &[Self::Entity]) -> impl Future<Output = Result<(), ErrorOf<Self>>> + Send;

    /// Stores a page of a snapshot that began at `begun`, unless an event has brought a newer version since.
    fn store_snapshot(
        &self,
        page: &[Self::Entity],
        begun: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), ErrorOf<Self>>> + Send;

    /// Removes what the snapshot did not contain, and does what follows from the snapshot.
    fn finish_snapshot(&self, begun: DateTime<Utc>) -> impl Future<Output = Result<(), ErrorOf<Self>>> + Send;
}

/// The error of a replica's service.
type ErrorOf<R> = <<R as Replica>::Store as EventStore>::Error;

/// A replica, and the feed of the service whose data it copies: events change it, and a snapshot refills it.
struct Filled<'a, R> {
    replica: &'a R,
    feed: &'a Feed,
    /// What brings the events.
    system: &'static str,
}

impl<R: Replica> Inbox for Filled<'_, R> {
    type Error = ErrorOf<R>;

    async fn cursor(&self, log: &str) -> Result<Option<String>, ErrorOf<R>> {
        self.replica.store().find_cursor(log).await
    }

    async fn apply(&self, events: &[Received], cursor: Option<Cursor<'_>>) -> Result<(), ErrorOf<R>> {
        traces::consuming(self.feed.service(), self.system, events, self.store(events, cursor)).await
    }

    async fn refill(&self) -> Result<(), ErrorOf<R>> {
        rebuild(self.replica, self.feed).await.map(drop)
    }
}

impl<R: Replica> Filled<'_, R> {
    async fn store(&self, events: &[Received], cursor: Option<Cursor<'_>>) -> Result<(), ErrorOf<R>> {
        let replica = self.replica;
        // Only the newest event of each entity: it carries the full state.
        let mut newest: HashMap<Uuid, (R::Entity, &Received)> = HashMap::new();
        for event in events {
            match read::<R>(event) {
                Ok(Some(entity)) => {
                    let (id, version) = R::version(&entity);
                    if newest.get(&id).is_none_or(|(known, _)| R::version(known).1 < version) {
                        newest.insert(id, (entity, event));
                    }
                }
                Ok(None) => {}
                Err(error) => park(replica, event, &error).await?,
            }
        }
        let (entities, sources): (Vec<_>, Vec<_>) = newest.into_values().unzip();
        match replica.store_newer(&entities).await {
            // The database refuses one of them. Storing them one by one shows which.
            Err(error) if R::is_refusal(&error) => {
                for (entity, source) in entities.iter().zip(sources) {
                    match replica.store_newer(std::slice::from_ref(entity)).await {
                        Err(error) if R::is_refusal(&error) => park(replica, source, &chain(&error)).await?,
                        stored => stored?,
                    }
                }
            }
            stored => stored?,
        }
        // Last: after a crash before this statement, the same events are applied again.
        match cursor {
            Some(Cursor { log, value }) => replica.store().store_cursor(log, value).await,
            None => Ok(()),
        }
    }
}

/// The entity after an event; `None` if the event carries none.
fn read<R: Replica>(event: &Received) -> Result<Option<R::Entity>, String> {
    match &*event.r#type {
        "" => Err("the event has no type".to_owned()),
        known if R::TYPES.contains(&known) => {
            event.read::<R::Data>().map(|data| Some(data.into())).map_err(|error| error.to_string())
        }
        other => {
            count_skipped(R::NAME, other, R::TYPES);
            Ok(None)
        }
    }
}

async fn park<R: Replica>(replica: &R, event: &Received, error: &str) -> Result<(), ErrorOf<R>> {
    // The error may quote the unreadable text.
    let error = &*storable(error);
    tracing::error!(event.id = event.id, event.r#type = event.r#type, error, "an event cannot be applied and is parked");
    replica.store().park(event, error).await
}

/// Keeps the replica up to date by the events that `transport` brings, for ever. `group` names this service to a broker.
pub async fn follow<R: Replica>(replica: &R, feed: &Feed, transport: &Transport<impl Broker>, group: &str) -> Infallible {
    transport.follow(feed, group, &Filled { replica, feed, system: transport.system() }).await
}

/// Runs a command on the replica.
///
/// # Errors
/// Why the command failed.
pub async fn run<R: Replica>(replica: &R, feed: &Feed, command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Rebuild => {
            let count = rebuild(replica, feed).await.map_err(|error| chain(&error))?;
            println!("{count} {} copied from {}", R::NAME, feed.service());
            Ok(ExitCode::SUCCESS)
        }
        Command::Retry => {
            let (applied, parked) = retry(replica).await.map_err(|error| chain(&error))?;
            println!("{applied} events applied, {parked} still parked");
            Ok(ExitCode::from(u8::from(parked > 0)))
        }
    }
}

/// Fills the replica from a snapshot of the other service: how many entities it has.
///
/// Requests and events go on meanwhile, so the end of the feed is read first. A later commit arrives as an event, and an
/// earlier one is in the snapshot. Where both have an entity, the version decides.
async fn rebuild<R: Replica>(replica: &R, feed: &Feed) -> Result<u64, ErrorOf<R>> {
    let end = feed.end().await?;
    let begun = replica.store().now().await?;
    let progress = Progress::new(R::NAME);
    let mut count = 0;
    for path in R::SNAPSHOT {
        let mut pages = feed.pages(path);
        while let Some(page) = pages.next::<R::Data>().await? {
            let page: Vec<R::Entity> = page.into_iter().map(Into::into).collect();
            replica.store_snapshot(&page, begun).await?;
            count += page.len() as u64;
            progress.at(count);
        }
    }
    replica.finish_snapshot(begun).await?;
    replica.store().store_cursor(&feed.log(), &end).await?;
    Ok(count)
}

/// Tries the parked events again: how many were applied, and how many are still parked.
async fn retry<R: Replica>(replica: &R) -> Result<(usize, usize), ErrorOf<R>> {
    let mut applied = 0;
    for event in replica.store().parked().await? {
        let stored = match read::<R>(&event) {
            Ok(entity) => replica.store_newer(entity.as_slice()).await.map_err(|error| chain(&error)),
            Err(error) => Err(error),
        };
        match stored {
            Ok(()) => {
                replica.store().unpark(&event.id).await?;
                applied += 1;
            }
            Err(error) => park(replica, &event, &error).await?,
        }
    }
    Ok((applied, replica.store().count_parked().await?.unsigned_abs() as usize))
}
