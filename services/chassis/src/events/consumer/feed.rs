//! Another service's events, read from its HTTP feed.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::inbox::{Cursor, Inbox, Received};
use super::lag::Follower;
use crate::error::chain;
use crate::events::retry::{Pauses, Trouble};
use crate::remote::{BaseUrl, Http, Limits, RemoteError, ServiceToken};

/// The number of events in one request.
const BATCH: usize = 200;
/// The largest batch read, in bytes: twice the size of a batch of the largest events that the services write.
const MAX_BATCH: usize = 16 * 1024 * 1024;
/// How long the other service may hold an answer until there is an event. Each answer proves that the end was reached, so
/// this is also how large the lag of a quiet feed gets.
const WAIT: Duration = Duration::from_secs(3);
/// How long reading the answer may take after that.
const READ: Duration = Duration::from_secs(10);

/// Another service, and how its feed is read.
#[derive(Debug, Clone)]
pub struct Feed {
    service: &'static str,
    http: Http,
}

/// Why the feed could not be followed now.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<E> {
    /// The feed could not be read.
    #[error(transparent)]
    Feed(#[from] RemoteError),
    /// The events could not be applied.
    #[error("events of the feed could not be applied")]
    Inbox(#[source] E),
    /// The inbox could not be filled: nothing was read yet, or events were lost.
    #[error("the data could not be read from a snapshot")]
    Refill(#[source] E),
}

/// What became of one request to the feed.
enum Followed {
    Applied,
    Refilled,
}

impl Feed {
    /// The feed of `service`, at `url`.
    pub fn new(service: &'static str, url: &BaseUrl) -> Self {
        let limits = Limits { connect: Duration::from_secs(1), attempt: WAIT + READ, call: (WAIT + READ) * 2 };
        Self { service, http: Http::new(service, url, limits).reading_up_to(MAX_BATCH) }
    }

    /// Shows this token.
    #[must_use]
    pub fn showing(self, token: ServiceToken) -> Self {
        Self { http: self.http.showing(token), ..self }
    }

    /// The name of the service that the feed belongs to.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The name under which the cursor of this feed is stored.
    pub(super) fn log(&self) -> String {
        format!("{}' feed", self.service)
    }

    /// The cursor behind all events committed by now.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn end(&self) -> Result<String, RemoteError> {
        let answer = self.http.get("/events?from=end").await?;
        match (answer.status, answer.cursor("after")) {
            (StatusCode::OK, Some(cursor)) => Ok(cursor),
            _ => Err(answer.unexpected()),
        }
    }

    /// The pages of a list of the service. `path` has a query.
    pub fn pages<'a>(&'a self, path: &'a str) -> Pages<'a> {
        Pages { http: &self.http, path, cursor: Some(String::new()) }
    }

    /// Hands the inbox all events after its cursor, for ever. Without a cursor, the inbox is filled first.
    pub async fn follow<I: Inbox>(&self, inbox: &I) -> Infallible {
        let trouble = Trouble::new(self.service, "consumed");
        let follower = Follower::begin(self.service);
        let mut pauses = Pauses::default();
        loop {
            match self.follow_once(inbox, &follower).await {
                Ok(Followed::Applied) => {
                    trouble.end();
                    pauses = Pauses::default();
                }
                // A feed that never knows its own cursor must not cause one snapshot after the other.
                Ok(Followed::Refilled) => tokio::time::sleep(pauses.next()).await,
                Err(error) => {
                    trouble.report(chain(&error));
                    tokio::time::sleep(pauses.next()).await;
                }
            }
        }
    }

    /// Waits for one batch, reads it, and has it applied.
    async fn follow_once<I: Inbox>(&self, inbox: &I, follower: &Follower) -> Result<Followed, FollowError<I::Error>> {
        let log = self.log();
        let mut cursor = inbox.cursor(&log).await.map_err(FollowError::Inbox)?;
        if cursor.is_none() {
            inbox.refill().await.map_err(FollowError::Refill)?;
            cursor = inbox.cursor(&log).await.map_err(FollowError::Inbox)?;
        }
        let after = cursor.as_ref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let page = format!("/events?limit={BATCH}&wait={}{after}", WAIT.as_secs());
        let answer = self.http.get_from_any(&page).await?;
        match answer.status {
            StatusCode::OK => {}
            // The other service was restored, is a different one, or no longer has the events after the cursor.
            StatusCode::BAD_REQUEST | StatusCode::GONE if cursor.is_some() => {
                let reason = format!("the feed answers {} to the stored cursor", answer.status);
                follower.refill(inbox, &reason).await.map_err(FollowError::Refill)?;
                return Ok(Followed::Refilled);
            }
            _ => return Err(answer.unexpected().into()),
        }
        let next = answer.cursor("after").ok_or_else(|| answer.unexpected())?;
        let events: Vec<Received> = answer.json()?;
        if !events.is_empty() {
            let cursor = Cursor { log: &log, value: &next };
            inbox.apply(&events, Some(cursor)).await.map_err(FollowError::Inbox)?;
        }
        follower.observe(&events);
        Ok(Followed::Applied)
    }
}

/// The pages of a list of another service.
pub struct Pages<'a> {
    http: &'a Http,
    path: &'a str,
    /// The parameter of the next page; `None` after the last one.
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
}

impl Pages<'_> {
    /// The items of the next page; `None` after the last one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Vec<T>>, RemoteError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let answer = self.http.get(&format!("{}{cursor}", self.path)).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unexpected());
        }
        self.cursor = answer.cursor("cursor").map(|cursor| format!("&cursor={cursor}"));
        Ok(Some(answer.json::<Page<T>>()?.items))
    }
}
