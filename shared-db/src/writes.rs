//! Shares of the pool for writes. A write may wait for a row that another transaction has locked, and keeps its connection
//! meanwhile. So writes together take a part of the pool, and those of one key, such as one user, a part of that.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::error::DatabaseError;
use crate::queue::Queue;
use crate::settings::Settings;

/// For how long a key is taken for locked after a write of it has waited in vain.
const SUSPECT: Duration = Duration::from_secs(10);

/// The places for writes.
pub(crate) struct Writes {
    /// Two thirds of the pool.
    all: Queue,
    /// A third of that, for all keys together that were found locked: ten locked rows cost no more than one.
    locked: Queue,
    /// The same number, for each key.
    share: usize,
    longest: usize,
    patience: Duration,
    keys: Mutex<Keys>,
}

/// The keys that have writes, or were found locked, by their hashes.
#[derive(Default)]
struct Keys {
    known: HashMap<u64, Key>,
    /// Queues of keys that are no longer known, for others: most writes are the only one of their key.
    spare: Vec<Arc<Queue>>,
}

impl Keys {
    fn forget(&mut self, key: u64) {
        self.spare.extend(self.known.remove(&key).map(|known| known.queue));
    }
}

/// What is known of a key while it has writes, or was found locked.
struct Key {
    queue: Arc<Queue>,
    writes: usize,
    locked: Option<Instant>,
}

impl Key {
    fn is_locked(&self) -> bool {
        self.locked.is_some_and(|since| since.elapsed() < SUSPECT)
    }
}

impl Writes {
    pub(crate) fn new(settings: &Settings) -> Self {
        let Settings { max_connections, queue_length: longest, .. } = *settings;
        let patience = settings.queue_timeout.min(settings.acquire_timeout);
        let all = (max_connections * 2 / 3).max(1);
        let share = (all / 3).max(1);
        let queue = |places| Queue::new(places, longest, patience);
        Self { all: queue(all), locked: queue(share), share, longest, patience, keys: Mutex::default() }
    }

    /// A place for a write of `key`.
    ///
    /// # Errors
    /// [`DatabaseError::NoConnection`] if none is free in time.
    pub(crate) async fn place(self: &Arc<Self>, key: &(impl Hash + ?Sized)) -> Result<Place, DatabaseError> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let key = hasher.finish();
        let (queue, is_locked) = self.join(key);
        // Counted from now on, so that a caller who leaves is counted off.
        let locked = AtomicU8::new(UNKNOWN);
        let mut place = Place { writes: self.clone(), key, permits: [const { None }; 3], locked };
        let limit = Instant::now() + self.patience;
        place.permits[0] = Some(queue.place(limit).await?);
        if is_locked {
            place.permits[1] = Some(self.locked.place(limit).await?);
        }
        place.permits[2] = Some(self.all.place(limit).await?);
        Ok(place)
    }

    fn join(&self, key: u64) -> (Arc<Queue>, bool) {
        let mut keys = self.keys();
        let Keys { known, spare } = &mut *keys;
        let mut queue = || spare.pop().unwrap_or_else(|| Arc::new(Queue::new(self.share, self.longest, self.patience)));
        let known = known.entry(key).or_insert_with(|| Key { queue: queue(), writes: 0, locked: None });
        known.writes += 1;
        (known.queue.clone(), known.is_locked())
    }

    /// Counts a write of `key` off. `locked` says whether it found the key locked, if that is known.
    fn leave(&self, key: u64, locked: Option<bool>) {
        let mut keys = self.keys();
        let Some(known) = keys.known.get_mut(&key) else { return };
        known.writes -= 1;
        if let Some(locked) = locked {
            known.locked = locked.then(Instant::now);
        }
        if known.writes == 0 && !known.is_locked() {
            keys.forget(key);
        }
        if locked == Some(true) {
            keys.known.retain(|_, known| known.writes > 0 || known.is_locked());
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the writes, until it is dropped. The connection that the write uses keeps it.
pub(crate) struct Place {
    writes: Arc<Writes>,
    key: u64,
    /// Of the key, of the locked keys, of all.
    permits: [Option<OwnedSemaphorePermit>; 3],
    locked: AtomicU8,
}

const UNKNOWN: u8 = 2;

impl Place {
    /// Notes the outcome of the write.
    pub(crate) fn note<T>(&self, outcome: &Result<T, DatabaseError>) {
        let locked = outcome.as_ref().is_err_and(DatabaseError::is_locked);
        self.locked.store(u8::from(locked), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permits = [const { None }; 3];
        let locked = self.locked.load(Ordering::Relaxed);
        self.writes.leave(self.key, (locked != UNKNOWN).then_some(locked == 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(max_connections: usize) -> Arc<Writes> {
        let patience = Duration::from_millis(20);
        Arc::new(Writes::new(&Settings { queue_timeout: patience, ..Settings::new("test", max_connections) }))
    }

    fn lock_timeout() -> Result<(), DatabaseError> {
        #[derive(Debug, thiserror::Error)]
        #[error("locked")]
        struct Locked;
        impl sqlx::error::DatabaseError for Locked {
            fn message(&self) -> &'static str {
                "locked"
            }
            fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
                Some("55P03".into())
            }
            fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
                self
            }
            fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
                self
            }
            fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
                self
            }
            fn kind(&self) -> sqlx::error::ErrorKind {
                sqlx::error::ErrorKind::Other
            }
        }
        Err(sqlx::Error::Database(Box::new(Locked)).into())
    }

    #[tokio::test]
    async fn writes_take_two_thirds_and_one_key_a_third_of_that() {
        let writes = writes(10);
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(writes.place("hot").await.expect("a place"));
        }
        assert!(writes.place("hot").await.is_err(), "a third of six");
        for key in 0..4 {
            held.push(writes.place(&key).await.expect("a place"));
        }
        assert!(writes.place(&9).await.is_err(), "two thirds of ten");
        held.clear();
        assert!(writes.keys().known.is_empty(), "nothing is kept of keys without writes");
        writes.place("hot").await.expect("a place");
    }

    #[tokio::test]
    async fn ten_locked_keys_together_take_no_more_than_one() {
        let writes = writes(10);
        for key in 0..10 {
            writes.place(&key).await.expect("a place").note(&lock_timeout());
        }
        let mut held = Vec::new();
        for key in 0..10 {
            held.extend(writes.place(&key).await.ok());
        }
        assert_eq!(held.len(), 2);
        held.push(writes.place("another").await.expect("a place for the others"));
        held.clear();
        // A write that succeeds shows that the row is free again.
        for key in 0..10 {
            writes.place(&key).await.expect("a place").note(&Ok::<(), DatabaseError>(()));
        }
        assert!(writes.keys().known.is_empty());
    }

    #[tokio::test]
    async fn the_smallest_pool_has_a_place() {
        let writes = writes(1);
        let held = writes.place("one").await.expect("a place");
        assert!(writes.place("another").await.is_err());
        drop(held);
        writes.place("another").await.expect("a place");
    }
}
