//! Compares what the view says with what the users service says, beside the requests and not in them. The dial is turned
//! when this has found nothing for long enough.

use std::sync::Arc;

use chassis::remote::{Remote, in_this_context};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Customer, Users};

/// Comparisons under way at most; further ones are left out, and counted.
const AT_ONCE: usize = 4;

/// What a comparison can come to.
const OUTCOMES: [&str; 5] = ["equal", "mismatch", "newer", "error", "left-out"];

/// The other way, and how much of it is in use.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    other: Users,
    free: Arc<Semaphore>,
}

impl Shadow {
    pub(super) fn new(other: Users) -> Self {
        // From the start, so that zero can be told from silence.
        chassis::metrics::recorder();
        OUTCOMES.into_iter().for_each(|outcome| count(outcome, 0));
        Self { other, free: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(super) fn remote(&self) -> &Remote {
        self.other.remote()
    }

    /// Starts a comparison, unless too many are under way, and returns at once.
    pub(super) fn compare(&self, orders: &[(Uuid, Option<Customer>)]) {
        let Ok(permit) = self.free.clone().try_acquire_owned() else { return count("left-out", 1) };
        let (other, orders) = (self.other.clone(), orders.to_vec());
        tokio::spawn(in_this_context(async move {
            compare(&other, &orders).await;
            drop(permit);
        }));
    }
}

async fn compare(other: &Users, orders: &[(Uuid, Option<Customer>)]) {
    let ids: Vec<Uuid> = orders.iter().map(|(id, _)| *id).collect();
    let found = match other.find_all(&ids).await {
        Ok(found) => found,
        Err(_counted_by_the_remote) => return count("error", 1),
    };
    for (id, local) in orders {
        match (local, found.get(id)) {
            // Changed between the two looks.
            (Some(local), Some(remote)) if remote.version > local.version => count("newer", 1),
            (local, remote) if local.as_ref() == remote => count("equal", 1),
            (local, remote) => {
                let version = |customer: Option<&Customer>| customer.map(|customer| customer.version);
                let (local, remote) = (version(local.as_ref()), version(remote));
                tracing::warn!(user.id = %id, local.version = local, remote.version = remote, "the shadow differs");
                count("mismatch", 1);
            }
        }
    }
}

fn count(outcome: &'static str, customers: u64) {
    metrics::counter!("customers_shadow_total", "outcome" => outcome).increment(customers);
}
