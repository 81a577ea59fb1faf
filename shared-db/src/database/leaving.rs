//! The connections to the side that the tables have left.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::Database;
use crate::switches::Side;

/// The most connections that are kept to the side not in use: as many as most services use. After a switch all requests need
/// one at once, and each login costs both ends milliseconds of CPU for the hash of the password.
pub(crate) const IDLE: usize = 16;
/// How long those to the side that was left stay open at least. The end of a server's process costs as much CPU as several
/// statements, and right after a switch the requests need it.
const STAY: Duration = Duration::from_secs(2);

/// While it lives, connections to the side that the tables leave are kept for their way back.
pub struct KeptWarm(Database);

impl Drop for KeptWarm {
    fn drop(&mut self) {
        if let Some(next) = &self.0.next {
            next.keepers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Database {
    /// Keeps connections to the side that the tables leave, for their way back.
    pub(crate) fn keep_warm(&self) -> KeptWarm {
        if let Some(next) = &self.next {
            next.keepers.fetch_add(1, Ordering::Relaxed);
        }
        KeptWarm(self.clone())
    }

    /// Closes the connections to the side that was left, but not now: those for the way back stay.
    pub(super) fn leave(&self, left: Side) {
        let database = self.clone();
        tokio::spawn(async move {
            let pool = database.pool(left);
            let mut is_done = false;
            loop {
                sleep(STAY).await;
                let kept = if database.is_kept_warm() { IDLE } else { 0 };
                let has_returned = database.known_switch().is_none_or(|known| known.side == left);
                let is_closed = pool.size() <= kept;
                if has_returned || (is_closed && is_done) {
                    return;
                }
                // Those in use, and those that are being opened, are closed in a later round.
                pool.close_surplus(kept);
                is_done = is_closed;
            }
        });
    }

    fn is_kept_warm(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.keepers.load(Ordering::Relaxed) > 0)
    }
}
