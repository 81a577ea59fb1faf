//! Compares the view with what the users service says. Turn the dial once this has found no difference for long enough.

use chassis::remote::{Comparisons, Remote};
use chassis::throttle;
use uuid::Uuid;

use super::remote::Users;
use crate::domain::Customer;

/// The other way to users, and the comparisons that are running.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    other: Users,
    comparisons: Comparisons,
}

impl Shadow {
    pub(super) fn new(other: Users) -> Self {
        Self { other, comparisons: Comparisons::new("customers_shadow_total") }
    }

    pub(super) fn remote(&self) -> &Remote {
        self.other.remote()
    }

    /// Starts a comparison in the background, unless too many are running.
    pub(super) fn compare(&self, orders: &[(Uuid, Option<Customer>)]) {
        let (shadow, orders) = (self.clone(), orders.to_vec());
        self.comparisons.start(async move { shadow.compare_now(&orders).await });
    }

    async fn compare_now(&self, orders: &[(Uuid, Option<Customer>)]) {
        let ids: Vec<Uuid> = orders.iter().map(|(id, _)| *id).collect();
        let found = match self.other.find_all(&ids).await {
            Ok(found) => found,
            Err(_counted_by_the_remote) => return self.comparisons.count("error", 1),
        };
        for (id, local) in orders {
            match (local, found.get(id)) {
                // The user changed between the two reads.
                (Some(local), Some(remote)) if remote.version > local.version => self.comparisons.count("newer", 1),
                (local, remote) if local.as_ref() == remote => self.comparisons.count("equal", 1),
                (local, remote) => {
                    let version = |customer: Option<&Customer>| customer.map(|customer| customer.version);
                    if let Some(omitted) = throttle::line("the shadow differs") {
                        let (local, remote) = (version(local.as_ref()), version(remote));
                        let message = "the shadow differs";
                        tracing::warn!(user.id = %id, local.version = local, remote.version = remote, omitted, message);
                    }
                    self.comparisons.count("mismatch", 1);
                }
            }
        }
    }
}
