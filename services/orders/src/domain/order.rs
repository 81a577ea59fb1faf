//! An order, its states, and the steps between them.

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An order as it is after its newest event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `UUIDv7`.
    pub id: Uuid,
    /// Who placed it.
    pub user_id: Uuid,
    /// Where it stands.
    pub status: Status,
    /// ISO 4217 code.
    pub currency: String,
    /// What was ordered.
    pub items: Vec<Item>,
    /// Sum over the items, in minor units.
    pub total_minor: i64,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// When its newest event occurred.
    pub updated_at: DateTime<Utc>,
    /// Number of its events.
    pub version: i64,
}

/// One line of an order. Its number is its place in the order's items, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Stock keeping unit.
    pub sku: String,
    /// 1 to 10000.
    pub quantity: i32,
    /// 0 to 10^9 minor units.
    pub unit_price_minor: i64,
}

/// What a client orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewOrder {
    /// Who orders.
    pub user_id: Uuid,
    /// ISO 4217 code.
    pub currency: String,
    /// 1 to 100 items.
    pub items: Vec<Item>,
}

/// Where an order stands. The first three are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waits for payment.
    Placed,
    /// Waits to be shipped.
    Paid,
    /// On its way.
    Shipped,
    /// Done.
    Delivered,
    /// Called off.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Placed, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];

    /// Its name in the database, in JSON, in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether an order may go from here to `next`.
    fn leads_to(self, next: Self) -> bool {
        use Status::{Cancelled, Delivered, Paid, Placed, Shipped};
        matches!((self, next), (Placed, Paid) | (Paid, Shipped) | (Shipped, Delivered) | (Placed | Paid, Cancelled))
    }
}

/// What happens to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It comes into being.
    Placed(NewOrder),
    /// Its price was paid.
    Paid,
    /// It was sent.
    Shipped,
    /// It arrived.
    Delivered,
    /// It was called off.
    Cancelled {
        /// Why, if somebody said.
        reason: Option<String>,
    },
}

impl Event {
    /// The status an order has after it.
    pub fn leads_to(&self) -> Status {
        match self {
            Self::Placed(_) => Status::Placed,
            Self::Paid => Status::Paid,
            Self::Shipped => Status::Shipped,
            Self::Delivered => Status::Delivered,
            Self::Cancelled { .. } => Status::Cancelled,
        }
    }
}

/// A step that the order's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {} cannot become {}", from.as_str(), to.as_str())]
pub struct InvalidTransition {
    /// Where the order stands.
    pub from: Status,
    /// Where it was to go.
    pub to: Status,
}

impl Order {
    /// A new order.
    pub fn place(id: Uuid, order: NewOrder, now: DateTime<Utc>) -> Self {
        let now = now.trunc_subsecs(6);
        let NewOrder { user_id, currency, items } = order;
        // 100 × 10^4 × 10^9 at most.
        let total_minor = items.iter().map(|item| i64::from(item.quantity) * item.unit_price_minor).sum();
        Self {
            id,
            user_id,
            status: Status::Placed,
            currency,
            items,
            total_minor,
            placed_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// The order after `event`. Time never runs backwards within one order, whatever the clocks of two instances say.
    ///
    /// # Errors
    /// If the state does not allow it.
    pub fn after(&self, event: &Event, now: DateTime<Utc>) -> Result<Self, InvalidTransition> {
        let to = event.leads_to();
        if !self.status.leads_to(to) {
            return Err(InvalidTransition { from: self.status, to });
        }
        Ok(Self {
            status: to,
            updated_at: now.trunc_subsecs(6).max(self.updated_at),
            version: self.version + 1,
            ..self.clone()
        })
    }
}
