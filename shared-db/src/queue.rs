//! A bounded queue for a number of places. Under overload it refuses soon what it cannot serve soon.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Histogram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::answer::Timer;
use crate::error::{DatabaseError, TOO_LONG};
use crate::traces;

/// Why a request is shed.
const FULL: &str = "the queue is full";

/// The places that are open at once when a queue opens slowly.
const FEW: usize = 2;
/// How long it takes until twice as many are open.
const STEP: Duration = Duration::from_millis(20);

/// Says what the metrics of waiting mean. What is shed begins at zero.
pub(crate) fn describe_metrics() {
    let waited = "How long requests and writes waited for a place, of those that waited.";
    metrics::describe_histogram!("db_pool_wait_seconds", metrics::Unit::Seconds, waited);
    let shed = "Requests and writes that found no place in time, by reason.";
    metrics::describe_counter!("db_requests_shed_total", metrics::Unit::Count, shed);
    for reason in [FULL, TOO_LONG] {
        metrics::counter!("db_requests_shed_total", "reason" => reason).increment(0);
    }
}

/// Places, and those who wait for one in the order of their arrival.
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    longest: usize,
    patience: Duration,
    /// Timers of waits that are over, for the next ones.
    timers: Mutex<Vec<Timer>>,
    /// Looked up at the first wait: a service has installed its recorder by then.
    waits: OnceLock<Histogram>,
}

impl Queue {
    /// A queue of at most `longest`, who wait for one of `places` for at most `patience`.
    pub(crate) fn new(places: usize, longest: usize, patience: Duration) -> Self {
        let (places, waiting) = (Arc::new(Semaphore::new(places)), AtomicUsize::new(0));
        Self { places, waiting, longest, patience, timers: Mutex::default(), waits: OnceLock::new() }
    }

    /// A place until `limit`, or until the patience of the queue ends.
    ///
    /// # Errors
    /// [`DatabaseError::NoConnection`] if the queue is full, or [`DatabaseError::LATE`] if no place is free in time.
    pub(crate) async fn place(&self, limit: Instant) -> Result<OwnedSemaphorePermit, DatabaseError> {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Ok(place),
            // Boxed: what happens rarely should not make the future of every request larger.
            Err(_) => Box::pin(self.wait(limit)).await,
        }
    }

    /// Opens a few places now, and all within some steps. After a switch all requests come at once, and the first statements
    /// on each connection cost the server several times as much as later ones: it reads the catalog, plans, and compiles
    /// triggers. On a few connections most of the requests find that done.
    pub(crate) fn open_slowly(&self) {
        let mut open = FEW;
        let mut closed = Vec::new();
        while let Ok(place) = self.places.clone().try_acquire_owned() {
            closed.push(place);
        }
        closed.truncate(closed.len().saturating_sub(open));
        tokio::spawn(async move {
            while !closed.is_empty() {
                sleep(STEP).await;
                closed.truncate(closed.len().saturating_sub(open));
                open *= 2;
            }
        });
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    async fn wait(&self, limit: Instant) -> Result<OwnedSemaphorePermit, DatabaseError> {
        let waiter = Waiter::join(&self.waiting);
        if waiter.before >= self.longest {
            return Err(DatabaseError::NoConnection(FULL));
        }
        let begun = Instant::now();
        let limit = limit.min(begun + self.patience);
        let mut timer = self.timers().pop().unwrap_or_default();
        let wait = async {
            let place = timer.until(limit, self.places.clone().acquire_owned()).await;
            place.and_then(Result::ok).ok_or(DatabaseError::LATE)
        };
        let place = traces::within("wait for a connection", wait).await;
        self.timers().push(timer);
        self.waits.get_or_init(|| metrics::histogram!("db_pool_wait_seconds")).record(begun.elapsed());
        place
    }

    fn timers(&self) -> MutexGuard<'_, Vec<Timer>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiter<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiter<'a> {
    fn join(waiting: &'a AtomicUsize) -> Self {
        Self { waiting, before: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(queue: &Queue) -> usize {
        queue.places.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_opens_slowly_has_few_places_at_first_and_all_within_steps() {
        let queue = Queue::new(16, 1, Duration::ZERO);
        queue.open_slowly();
        assert_eq!(free(&queue), FEW);
        for places in [2 * FEW, 4 * FEW, 8 * FEW] {
            sleep(STEP + Duration::from_millis(1)).await;
            assert_eq!(free(&queue), places.min(16));
        }
        // Places that are in use are not waited for.
        let held = queue.place(Instant::now()).await.expect("a free place");
        queue.open_slowly();
        assert_eq!(free(&queue), FEW);
        drop(held);
        assert_eq!(free(&queue), FEW + 1);
    }
}
