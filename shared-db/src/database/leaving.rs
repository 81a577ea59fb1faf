//! The connections to the side that the tables have left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::Database;
use crate::switches::Side;
use crate::warm::IDLE;

/// How long they stay open at least. The end of a server's process costs as much CPU as several statements, and right after
/// a switch the requests need it.
const STAY: Duration = Duration::from_secs(2);

/// Says that the side not in use is kept warm, until it is dropped.
pub(crate) struct KeptWarm(Arc<AtomicUsize>);

impl Drop for KeptWarm {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Database {
    /// Keeps connections to the side that the tables leave, for their way back.
    pub(crate) fn keep_warm(&self) -> Option<KeptWarm> {
        let keepers = self.next.as_ref()?.keepers.clone();
        keepers.fetch_add(1, Ordering::Relaxed);
        Some(KeptWarm(keepers))
    }

    /// Closes the connections to the side that was left, but not now: those for the way back stay.
    pub(super) fn leave(&self, left: Side) {
        let database = self.clone();
        tokio::spawn(async move {
            let pool = database.pool(left);
            loop {
                sleep(STAY).await;
                let kept = if database.is_kept_warm() { IDLE } else { 0 };
                let has_returned = database.known_switch().is_none_or(|known| known.side == left);
                if has_returned || pool.size() <= kept {
                    return;
                }
                // Those in use are closed in a later round.
                pool.close_idle(kept);
            }
        });
    }

    fn is_kept_warm(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.keepers.load(Ordering::Relaxed) > 0)
    }
}
