//! Compares what the view says with what the orders service says. The dial is turned when this has found nothing for long
//! enough.

use chassis::remote::{Comparisons, Http, Remote};
use shared_db::{Database, run};
use uuid::Uuid;

use super::count_open_orders;
use crate::db::open_orders as db;

/// How often two answers that differ are asked for again: an order may have been placed between the two.
const LOOKS: usize = 3;

/// The other way, and how much of it is in use.
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

    /// Starts a comparison, unless too many are under way, and returns at once.
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
            if look == LOOKS {
                tracing::warn!(user.id = %user_id, local.count = local, remote.count = remote, "the shadow differs");
            }
        }
        "mismatch"
    }
}
