//! The long polls of the feed. One task looks at the log for all of them, and those that wait for the same page get the same
//! bytes, so their number costs the database nothing.

use std::collections::HashMap;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::event::{CloudEvent, Position};
use super::read_after::ReadAfter;
use super::store::{EventStore, FeedEvent};
use super::versions::published;
use super::wakeups::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::http::problem::Problem;

/// The longest time for one look at the log.
const LOOK: Duration = Duration::from_secs(2);
/// The shortest pause between two looks, for each request that waits, and for all of them.
const PAUSE_EACH: Duration = Duration::from_micros(100);
const PAUSE_ALL: Duration = Duration::from_millis(200);
/// The most pages that are read at once, on a machine with enough cores. Readers who go through the whole log leave
/// connections and time to others: at most half of the cores are theirs.
const READERS: usize = 3;
/// The longest wait for the turn to read a page. The page itself takes up to 3.5 s.
const TURN: Duration = Duration::from_secs(1);
/// The most events of a page that a thread reads which also answers other requests.
const SHORT: i64 = 100;

/// A page of the feed, ready to be sent.
#[derive(Debug)]
pub(super) struct FeedPage {
    pub body: Bytes,
    /// The position of the last event, and up to where the log is archived. `None` if there is no event.
    pub last: Option<(Position, Option<String>)>,
}

impl FeedPage {
    /// A page without an event.
    pub(super) fn empty() -> Self {
        Self { body: Bytes::from_static(b"[]"), last: None }
    }

    fn new<E: EventStore>(found: Vec<FeedEvent>) -> Self {
        let last = found.last().map(|last| (last.position(), last.archived_up_to.clone()));
        let events = found.into_iter().flat_map(|found| published(found.into_event(), E::TYPES));
        let events: Vec<CloudEvent> = events.map(|event| event.publish(E::SOURCE)).collect();
        let body = serde_json::to_vec(&events).expect("events are JSON, and writing to memory does not fail");
        Self { body: body.into(), last }
    }
}

/// What the newest look at the log has found.
#[derive(Debug, Clone, Default)]
enum Look {
    #[default]
    None,
    /// The position of the last event.
    End(Position),
    Failed(Problem),
}

type Reading = Pin<Box<dyn Future<Output = Result<Arc<FeedPage>, Problem>> + Send>>;

/// The log of a service, and the requests that wait for its events.
pub(super) struct LongPolls<E> {
    pub store: E,
    looks: watch::Sender<Look>,
    /// Whether the task runs. It runs while somebody waits.
    is_looking: Mutex<bool>,
    readers: Arc<Semaphore>,
    /// The pages that are being read, by what they start after and their limit.
    pages: Mutex<HashMap<(Position, i64), WeakShared<Reading>>>,
}

impl<E: EventStore> LongPolls<E> {
    pub(super) fn new(store: E) -> Self {
        let (looks, is_looking, pages) = Default::default();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let readers = Arc::new(Semaphore::new((cores / 2).clamp(1, READERS)));
        Self { store, looks, is_looking, readers, pages }
    }

    /// The page after a position, of a database that has the changes of `seen`. If it has no event, this waits for one for
    /// at most `wait`.
    ///
    /// # Errors
    /// The database's. 503 if too many wait.
    pub(super) async fn page(
        self: &Arc<Self>,
        after: Position,
        limit: i64,
        wait: Duration,
        seen: ReadAfter,
    ) -> Result<Arc<FeedPage>, Problem> {
        if wait.is_zero() {
            return Ok(Arc::new(self.read(after, limit, seen).await?));
        }
        let wakeups = self.store.wakeups();
        let too_many = || Problem::unavailable("too many requests wait for events: set no `wait`, or come back later");
        let _counted = wakeups.begin_long_poll().ok_or_else(too_many)?;
        let deadline = tokio::time::sleep(wait);
        let closed = wakeups.closed();
        tokio::pin!(deadline, closed);
        let mut looks = self.looks();
        loop {
            let look = looks.borrow_and_update().clone();
            match look {
                Look::Failed(problem) => return Err(problem),
                Look::End(end) if after < end => {
                    // The look was at the primary. A standby that is behind it would have nothing to show.
                    let seen = if seen == ReadAfter::NOW { seen } else { end.into() };
                    let page = self.read_together(after, limit, seen).await?;
                    if page.last.is_some() {
                        return Ok(page);
                    }
                }
                Look::End(_) | Look::None => {}
            }
            tokio::select! {
                biased;
                () = &mut closed => break,
                // The sender lives as long as `self`.
                _ = looks.changed() => {}
                () = &mut deadline => break,
            }
        }
        Ok(Arc::new(FeedPage::empty()))
    }

    async fn read(&self, after: Position, limit: i64, seen: ReadAfter) -> Result<FeedPage, Problem> {
        let turn = tokio::time::timeout(TURN, self.readers.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Problem::unavailable("too many requests read the feed now"))?;
        let store = self.store.clone();
        let read = async move {
            let _turn = turn;
            store.feed(after, limit, seen).await.map(FeedPage::new::<E>).map_err(E::Error::into)
        };
        if limit <= SHORT {
            return read.await;
        }
        // A long page keeps its thread busy. The threads that answer requests go on meanwhile.
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(read)).await.unwrap_or_else(|_| Err(Problem::internal()))
    }

    /// The same page for all that ask for it at once.
    fn read_together(self: &Arc<Self>, after: Position, limit: i64, seen: ReadAfter) -> Shared<Reading> {
        let mut pages = lock(&self.pages);
        if let Some(reading) = pages.get(&(after, limit)).and_then(WeakShared::upgrade) {
            return reading;
        }
        pages.retain(|_, reading| reading.upgrade().is_some());
        let polls = self.clone();
        let reading: Reading = Box::pin(async move { polls.read(after, limit, seen).await.map(Arc::new) });
        let reading = reading.shared();
        pages.extend(reading.downgrade().map(|weak| ((after, limit), weak)));
        reading
    }

    /// What looks find from now on, and the newest one while the task runs. This starts the task.
    fn looks(self: &Arc<Self>) -> watch::Receiver<Look> {
        // Before the lock: the task ends only if it has no receiver while it holds the lock.
        let looks = self.looks.subscribe();
        let mut is_looking = lock(&self.is_looking);
        if !*is_looking {
            *is_looking = true;
            self.looks.send_replace(Look::None);
            tokio::spawn(self.clone().keep_looking());
        }
        looks
    }

    /// Looks at the log after each wake-up and at intervals, until nobody waits or a look fails.
    async fn keep_looking(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            // Listening starts before the look, so that an event committed in between is not missed.
            let woken = self.store.wakeups().woken();
            let newest = tokio::time::timeout(LOOK, self.store.newest()).await;
            let Some(waiting) = self.tell(match newest {
                Ok(Ok(end)) => Look::End(end),
                Ok(Err(error)) => Look::Failed(error.into()),
                Err(_elapsed) => Look::Failed(Problem::unavailable("the database did not answer in time")),
            }) else {
                return;
            };
            let shortest = (PAUSE_EACH * waiting).min(PAUSE_ALL);
            tokio::time::sleep(shortest).await;
            tokio::select! {
                // An event was committed. If an older transaction withholds it, a short pause finds it soon.
                () = woken => pause = FIRST_PAUSE.max(shortest),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Tells those who wait what a look has found, if that is new. How many they are; `None` if the task ends.
    fn tell(&self, look: Look) -> Option<u32> {
        let mut is_looking = lock(&self.is_looking);
        let has_failed = matches!(look, Look::Failed(_));
        self.looks.send_if_modified(|known| {
            let is_new = !matches!((&*known, &look), (Look::End(known), Look::End(end)) if known == end);
            *known = look;
            is_new
        });
        let waiting = u32::try_from(self.looks.receiver_count()).unwrap_or(u32::MAX);
        *is_looking = waiting > 0 && !has_failed;
        is_looking.then_some(waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
