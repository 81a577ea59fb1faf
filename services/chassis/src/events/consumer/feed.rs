//! Another service's events, read from its HTTP feed.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::inbox::{Inbox, Received, observe};
use crate::error::chain;
use crate::events::retry::{Pauses, Trouble};
use crate::remote::{BaseUrl, Http, Limits, RemoteError};

/// The number of events in one request.
const BATCH: usize = 200;
/// The largest batch read, in bytes: twice the size of a batch of the largest events that the services write.
const MAX_BATCH: usize = 16 * 1024 * 1024;
/// How long the other service may hold an answer until there is an event.
const WAIT: Duration = Duration::from_secs(20);
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
    /// The feed does not know the stored cursor. The other service was restored, or is a different one.
    #[error("the feed does not know the stored cursor: rebuild the replica")]
    Lost,
    /// The events could not be applied.
    #[error("events of the feed could not be applied")]
    Inbox(#[source] E),
}

impl Feed {
    /// The feed of `service`, at `url`.
    pub fn new(service: &'static str, url: &BaseUrl) -> Self {
        let limits = Limits { connect: Duration::from_secs(1), attempt: WAIT + READ, call: (WAIT + READ) * 2 };
        Self { service, http: Http::new(service, url, limits).reading_up_to(MAX_BATCH) }
    }

    /// The name of the service that the feed belongs to.
    pub fn service(&self) -> &'static str {
        self.service
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

    /// Hands the inbox all events after its cursor, for ever.
    pub async fn follow<I: Inbox>(&self, inbox: &I) -> Infallible {
        let trouble = Trouble::new(self.service, "consumed");
        let mut pauses = Pauses::default();
        loop {
            match self.follow_once(inbox).await {
                Ok(()) => {
                    trouble.end();
                    pauses = Pauses::default();
                }
                Err(error) => {
                    trouble.report(chain(&error));
                    tokio::time::sleep(pauses.next()).await;
                }
            }
        }
    }

    /// Waits for one batch, reads it, and has it applied.
    async fn follow_once<I: Inbox>(&self, inbox: &I) -> Result<(), FollowError<I::Error>> {
        let cursor = inbox.cursor().await.map_err(FollowError::Inbox)?;
        let after = cursor.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let answer = self.http.get(&format!("/events?limit={BATCH}&wait={}{after}", WAIT.as_secs())).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Err(FollowError::Lost),
            _ => return Err(answer.unexpected().into()),
        }
        let next = answer.cursor("after").ok_or_else(|| answer.unexpected())?;
        let events: Vec<Received> = answer.json()?;
        if !events.is_empty() {
            inbox.apply(&events, Some(&next)).await.map_err(FollowError::Inbox)?;
        }
        observe(self.service, &events);
        Ok(())
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
