//! A log and an inbox in memory, and assertions about their events.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::events::consumer::{Cursor, Inbox, Received};
use chassis::events::{LoggedEvent, Outbox, Position};
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Checks a position of a log before it is stored.
pub type Check = Box<dyn Fn(&Log, Position) + Send + Sync>;

/// A log in memory.
pub struct Log {
    events: Mutex<Vec<(Uuid, i64)>>,
    things: Vec<Uuid>,
    /// Extra bytes in each event's data.
    pub ballast: usize,
    /// The index of an event that has other extra bytes, and how many.
    pub large: Option<(usize, usize)>,
    pub published: watch::Sender<Position>,
    pub reads: watch::Sender<usize>,
    /// Called before a position is stored.
    pub check: Option<Check>,
}

/// When every event of a [`Log`] happened.
pub fn time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 250_000_000).expect("a time")
}

impl Log {
    /// A log with so many events, of five subjects in turn.
    pub fn new(events: usize) -> Self {
        Self::about(5, events)
    }

    /// A log with so many events, of so many subjects in turn.
    pub fn about(things: usize, events: usize) -> Self {
        let log = Self {
            events: Mutex::default(),
            things: (0..things).map(|_| Uuid::now_v7()).collect(),
            ballast: 0,
            large: None,
            published: watch::Sender::default(),
            reads: watch::Sender::default(),
            check: None,
        };
        log.append(events);
        log
    }

    pub fn append(&self, more: usize) {
        let mut events = self.events.lock().expect("whole");
        for _ in 0..more {
            let index = events.len();
            let turn = i64::try_from(index / self.things.len()).expect("few");
            events.push((self.things[index % self.things.len()], turn + 1));
        }
    }

    /// The ids of all events up to a position, in the log's order.
    pub fn ids_up_to(&self, place: Position) -> Vec<String> {
        let events = self.events.lock().expect("whole");
        let count = usize::try_from(place.position).expect("small");
        events.iter().take(count).map(|(thing, version)| format!("{thing}/{version}")).collect()
    }

    /// The ids of all events.
    pub fn ids(&self) -> Vec<String> {
        self.ids_up_to(self.end())
    }

    fn end(&self) -> Position {
        place(self.events.lock().expect("whole").len())
    }

    /// Waits until everything is published.
    pub async fn until_published(&self) {
        let end = self.end();
        until(&self.published, |published| *published == end).await;
    }
}

fn place(index: usize) -> Position {
    Position { epoch: 1, xid: 1, position: i64::try_from(index).expect("small") }
}

/// Waits until the value is right.
pub async fn until<T>(value: &watch::Sender<T>, right: impl FnMut(&T) -> bool) {
    let mut value = value.subscribe();
    tokio::time::timeout(PATIENCE, value.wait_for(right)).await.expect("in time").expect("not closed");
}

/// What each event carries of the request that caused it.
pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

impl Outbox for Log {
    type Error = Infallible;

    async fn published(&self) -> Result<Position, Infallible> {
        tokio::task::yield_now().await;
        Ok(*self.published.borrow())
    }

    async fn read(&self, after: Position, limit: i64) -> Result<Vec<(Position, LoggedEvent)>, Infallible> {
        tokio::task::yield_now().await;
        self.reads.send_modify(|reads| *reads += 1);
        let events = self.events.lock().expect("whole");
        let after = usize::try_from(after.position).expect("small");
        // Small batches, so that there are several.
        let limit = usize::try_from(limit).expect("small").min(40);
        let ballast = |index| self.large.filter(|(large, _)| *large == index).map_or(self.ballast, |(_, bytes)| bytes);
        let data = |index, version| match ballast(index) {
            0 => serde_json::json!({ "version": version }),
            bytes => serde_json::json!({ "version": version, "ballast": "-".repeat(bytes) }),
        };
        let batch = events.iter().enumerate().skip(after).take(limit);
        Ok(batch
            .map(|(index, (subject, version))| {
                let event = LoggedEvent {
                    subject: *subject,
                    version: *version,
                    r#type: "thing.happened.v1".into(),
                    data: serde_json::value::to_raw_value(&data(index, *version)).expect("JSON"),
                    occurred_at: time(),
                    actor: Some("somebody".to_owned()),
                    traceparent: Some(TRACEPARENT.to_owned()),
                };
                (place(index + 1), event)
            })
            .collect())
    }

    async fn store_published(&self, up_to: Position) -> Result<(), Infallible> {
        tokio::task::yield_now().await;
        if let Some(check) = &self.check {
            check(self, up_to);
        }
        self.published.send_replace(up_to);
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Asserts that each subject's events first appear in the order of their versions, without a gap.
#[track_caller]
pub fn assert_in_order(ids: impl IntoIterator<Item = String>) {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for id in ids {
        let (thing, version) = id.split_once('/').expect("an event's id");
        let version: i64 = version.parse().expect("a version");
        let last = last.entry(thing.to_owned()).or_default();
        assert!(version <= *last + 1, "{id} came after version {last}");
        *last = version.max(*last);
    }
}

/// Asserts that nothing is lost.
#[track_caller]
pub fn assert_all(of: &Log, came: impl IntoIterator<Item = String>) {
    let came: BTreeSet<String> = came.into_iter().collect();
    let lost: Vec<String> = of.ids().into_iter().filter(|id| !came.contains(id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Where a consumer can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The batch was handed over, nothing is done.
    Before,
    /// The effect is there, but the consumer does not know it yet.
    AfterEffect,
    /// The consumer knows it.
    AfterReturn,
}

/// An inbox in memory.
#[derive(Default)]
pub struct Applied {
    /// What was applied, in that order.
    pub events: watch::Sender<Vec<Received>>,
    /// What each call got.
    pub attempts: watch::Sender<Vec<Vec<Received>>>,
    /// How often it was refilled.
    pub refills: watch::Sender<usize>,
    /// The stored places.
    pub cursors: Mutex<BTreeMap<String, String>>,
    /// How many of the next calls fail.
    pub failures: AtomicUsize,
    /// Where to stop, and in which call.
    pub stop: Option<(Stage, usize)>,
    /// Told when that is reached.
    pub stopped: Notify,
}

/// The inbox fails for a while.
#[derive(Debug, thiserror::Error)]
#[error("not now")]
pub struct NotNow;

impl Applied {
    /// An inbox that goes on where this one is, and has applied nothing itself.
    pub fn successor(&self) -> Self {
        Self { cursors: Mutex::new(self.cursors.lock().expect("whole").clone()), ..Self::default() }
    }

    pub fn ids(&self) -> Vec<String> {
        self.events.borrow().iter().map(|event| event.id.clone()).collect()
    }

    /// Waits until every event of the log is applied.
    pub async fn until_all(&self, log: &Log) {
        let ids: BTreeSet<String> = log.ids().into_iter().collect();
        until(&self.events, |events| {
            let applied: BTreeSet<&String> = events.iter().map(|event| &event.id).collect();
            ids.iter().all(|id| applied.contains(id))
        })
        .await;
    }

    async fn reach(&self, stage: Stage) {
        if self.stop == Some((stage, self.attempts.borrow().len())) {
            self.stopped.notify_one();
            if stage != Stage::AfterReturn {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Inbox for Applied {
    type Error = NotNow;

    async fn cursor(&self, log: &str) -> Result<Option<String>, NotNow> {
        Ok(self.cursors.lock().expect("whole").get(log).cloned())
    }

    async fn apply(&self, events: &[Received], cursor: Option<Cursor<'_>>) -> Result<(), NotNow> {
        if !events.is_empty() {
            self.apply_events(events).await?;
        }
        if let Some(Cursor { log, value }) = cursor {
            self.cursors.lock().expect("whole").insert(log.to_owned(), value.to_owned());
        }
        self.reach(Stage::AfterReturn).await;
        Ok(())
    }

    async fn refill(&self) -> Result<(), NotNow> {
        self.refills.send_modify(|refills| *refills += 1);
        Ok(())
    }
}

impl Applied {
    async fn apply_events(&self, events: &[Received]) -> Result<(), NotNow> {
        self.attempts.send_modify(|attempts| attempts.push(events.to_vec()));
        self.reach(Stage::Before).await;
        let failing = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Err(NotNow);
        }
        self.events.send_modify(|applied| applied.extend_from_slice(events));
        self.reach(Stage::AfterEffect).await;
        Ok(())
    }
}
