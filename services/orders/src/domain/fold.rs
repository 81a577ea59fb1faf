//! An order's state, folded from its events.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::order::{Event, InvalidTransition, Order};

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The order's version after it.
    pub version: i64,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// The change.
    pub event: Event,
}

/// Why events are not the log of an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// An event is missing, or stands twice.
    #[error("event {expected} is missing: {found} follows")]
    Gap {
        /// The next version of a whole log.
        expected: i64,
        /// The next version of this log.
        found: i64,
    },
    /// The first event is not `placed`.
    #[error("the first event does not place the order")]
    NotPlaced,
    /// The state before an event does not allow the event.
    #[error("event {version} is impossible")]
    Impossible {
        /// The event's version.
        version: i64,
        /// The states.
        source: InvalidTransition,
    },
}

/// The order `id` after `events`, oldest first; `None` if there are none. Of an archived log, `base` is the order after the
/// event that the archive has kept, and `events` are those after that one.
///
/// # Errors
/// If the events are not the log of an order.
pub fn fold(id: Uuid, base: Option<Order>, events: impl IntoIterator<Item = Recorded>) -> Result<Option<Order>, FoldError> {
    let mut order = base;
    for Recorded { version, occurred_at, event } in events {
        let expected = order.as_ref().map_or(1, |order| order.version + 1);
        if version != expected {
            return Err(FoldError::Gap { expected, found: version });
        }
        order = Some(match (order, event) {
            (None, Event::Placed(new)) => Order::place(id, new, occurred_at),
            (None, _) => return Err(FoldError::NotPlaced),
            (Some(order), event) => {
                order.after(&event, occurred_at).map_err(|source| FoldError::Impossible { version, source })?
            }
        });
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Item, NewOrder, Status};

    fn new_order() -> impl Strategy<Value = NewOrder> {
        let item = ("[a-z]{1,64}", 1..=10_000, 0..=1_000_000_000_i64).prop_map(|(sku, quantity, unit_price_minor)| Item {
            sku,
            quantity,
            unit_price_minor,
        });
        prop::collection::vec(item, 1..=100).prop_map(|items| NewOrder {
            user_id: Uuid::nil(),
            currency: "EUR".to_owned(),
            items,
        })
    }

    fn step() -> impl Strategy<Value = Event> {
        let cancelled = prop::option::of("[a-z]{1,9}").prop_map(|reason| Event::Cancelled { reason });
        prop_oneof![Just(Event::Paid), Just(Event::Shipped), Just(Event::Delivered), cancelled]
    }

    proptest! {
        /// Any steps in any order with any clocks: the log of the accepted steps folds to the state that they led to.
        #[test]
        fn an_order_is_the_fold_of_its_events(
            new in new_order(),
            steps in prop::collection::vec((step(), -5..=60_i64), 0..12),
        ) {
            let start = Utc::now();
            let mut order = Order::place(Uuid::now_v7(), new.clone(), start);
            let mut log = vec![Recorded { version: 1, occurred_at: order.updated_at, event: Event::Placed(new.clone()) }];
            for (event, seconds) in steps {
                match order.after(&event, order.updated_at + TimeDelta::seconds(seconds)) {
                    Ok(next) => {
                        prop_assert!(next.updated_at >= order.updated_at);
                        prop_assert_eq!(&next.items, &order.items);
                        log.push(Recorded { version: next.version, occurred_at: next.updated_at, event });
                        order = next;
                    }
                    Err(refused) => prop_assert_eq!(refused.from, order.status),
                }
            }
            let price = |item: &Item| i128::from(item.quantity) * i128::from(item.unit_price_minor);
            let total: i128 = new.items.iter().map(price).sum();
            prop_assert_eq!(i128::from(order.total_minor), total);
            // Many readers of JSON take numbers as floats: the total must be exact there too.
            prop_assert!(order.total_minor < 1 << 53);
            prop_assert_eq!(order.version as usize, log.len());
            prop_assert_eq!(fold(order.id, None, log.clone()), Ok(Some(order.clone())));
            // From each event on, the log folds to the same order.
            for kept in 1..=log.len() {
                let base = fold(order.id, None, log[..kept].to_vec()).expect("a log");
                prop_assert_eq!(fold(order.id, base, log[kept..].to_vec()), Ok(Some(order.clone())));
            }

            // A log with a gap is refused.
            if log.len() > 1 {
                log.remove(log.len() / 2 - usize::from(log.len() == 2));
                let broken = fold(order.id, None, log);
                prop_assert!(broken.is_err(), "{broken:?}");
            }
        }
    }

    #[test]
    fn only_the_steps_of_the_state_machine_are_allowed() {
        use Status::{Cancelled, Delivered, Paid, Placed, Shipped};
        let allowed = [(Placed, Paid), (Paid, Shipped), (Shipped, Delivered), (Placed, Cancelled), (Paid, Cancelled)];
        let new = NewOrder { user_id: Uuid::nil(), currency: "EUR".to_owned(), items: Vec::new() };
        for from in Status::ALL {
            for event in [
                Event::Placed(new.clone()),
                Event::Paid,
                Event::Shipped,
                Event::Delivered,
                Event::Cancelled { reason: None },
            ] {
                let to = event.leads_to();
                let order = Order { status: from, ..Order::place(Uuid::nil(), new.clone(), Utc::now()) };
                let after = order.after(&event, Utc::now());
                assert_eq!(after.is_ok(), allowed.contains(&(from, to)), "{from:?} → {to:?}");
            }
        }
    }

    #[test]
    fn an_order_without_events_is_none() {
        assert_eq!(fold(Uuid::nil(), None, []), Ok(None));
        let paid = Recorded { version: 1, occurred_at: Utc::now(), event: Event::Paid };
        assert_eq!(fold(Uuid::nil(), None, [paid]), Err(FoldError::NotPlaced));
    }
}
