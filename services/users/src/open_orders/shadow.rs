//! Compares the view with what the orders service says. Turn the dial once this has found no difference for long enough.

use chassis::remote::{Comparisons, Http, Remote};
use chassis::throttle;
use shared_db::{Database, run};
use uuid::Uuid;

use super::http::count_open_orders;
use crate::db::open_orders as db;

/// How often a difference is compared again: an order may have been placed between the two reads.
const LOOKS: usize = 3;

/// The other way to orders, and the comparisons that are running.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    other: Http,
    comparisons: Comparisons,
}

impl Shadow {
    pub(super) fn new(other: Http) -> Self {
        Self { other, comparisons: Comparisons::new("open_orders_shadow_total") }
    }

    pub(super) fn remote(&self) -> &Remote {
        self.other.remote()
    }

    /// Starts a comparison in the background, unless too many are running.
    pub(super) fn compare(&self, database: &Database, user_id: Uuid) {
        let (shadow, database) = (self.clone(), database.clone());
        self.comparisons.start(async move {
            let outcome = shadow.compare_now(&database, user_id).await;
            shadow.comparisons.count(outcome, 1);
        });
    }

    async fn compare_now(&self, database: &Database, user_id: Uuid) -> &'static str {
        for look in 1..=LOOKS {
            let local = run!(database, connection => db::count_open_orders(connection, user_id)).await;
            let Ok(local) = local else { return "error" };
            let Ok(remote) = count_open_orders(&self.other, user_id).await else { return "error" };
            if local == remote {
                return if look == 1 { "equal" } else { "newer" };
            }
            if look == LOOKS
                && let Some(omitted) = throttle::line("the shadow differs")
            {
                let message = "the shadow differs";
                tracing::warn!(user.id = %user_id, local.count = local, remote.count = remote, omitted, message);
            }
        }
        "mismatch"
    }
}
