//! When a switch of the tables was last seen under way.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a switch that was seen counts. After it, all who have waited run at once.
const RECENT: Duration = Duration::from_secs(2);
/// For how long a look counts that saw none. Under overload, each refused request would look.
const LOOKED: Duration = Duration::from_millis(20);

/// When a switch was last seen, and when this process last looked for one.
#[derive(Default)]
pub(crate) struct Sightings(Mutex<Newest>);

#[derive(Default)]
struct Newest {
    seen: Option<Instant>,
    looked: Option<Instant>,
}

impl Sightings {
    /// Notes what a look has found.
    pub(crate) fn note(&self, seen: bool) {
        let mut newest = self.newest();
        newest.looked = Some(Instant::now());
        if seen {
            newest.seen = newest.looked;
        }
    }

    /// Whether a switch is under way. `None` if nobody has looked lately.
    pub(crate) fn known(&self) -> Option<bool> {
        let newest = self.newest();
        if newest.seen.is_some_and(|at| at.elapsed() < RECENT) {
            return Some(true);
        }
        newest.looked.filter(|at| at.elapsed() < LOOKED).map(|_| false)
    }

    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_switch_counts_for_a_while_and_a_look_in_vain_for_a_moment() {
        let sightings = Sightings::default();
        assert_eq!(sightings.known(), None);
        sightings.note(false);
        assert_eq!(sightings.known(), Some(false));
        tokio::time::sleep(LOOKED).await;
        assert_eq!(sightings.known(), None);
        sightings.note(true);
        sightings.note(false);
        assert_eq!(sightings.known(), Some(true));
        tokio::time::sleep(RECENT).await;
        assert_eq!(sightings.known(), None);
    }
}
