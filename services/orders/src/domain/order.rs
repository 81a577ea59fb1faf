//! An order, its states, and the steps between them.

use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most lines of an order.
pub const MAX_ITEMS: usize = 100;

/// An order after its newest event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `UUIDv7`.
    pub id: Uuid,
    /// The user who placed it.
    pub user_id: Uuid,
    /// Its state.
    pub status: Status,
    /// ISO 4217 code.
    pub currency: String,
    /// Its lines.
    pub items: Vec<Item>,
    /// Sum over the items, in minor units.
    pub total_minor: i64,
    /// When it was placed.
    pub placed_at: DateTime<Utc>,
    /// When its newest event occurred.
    pub updated_at: DateTime<Utc>,
    /// How many events it has.
    pub version: i64,
}

/// A line of an order. Its number is its index in the order's items plus 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Stock keeping unit.
    pub sku: String,
    /// How many pieces.
    pub quantity: i32,
    /// Price of one piece, in minor units.
    pub unit_price_minor: i64,
}

/// What a client orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewOrder {
    /// The user who orders.
    pub user_id: Uuid,
    /// ISO 4217 code.
    pub currency: String,
    /// Its lines.
    pub items: Vec<Item>,
}

/// The state of an order. An order in one of the first three is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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
    /// All states.
    pub const ALL: [Self; 5] = [Self::Placed, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];

    /// The state in the database, in JSON and in events.
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

/// A change of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A user placed it.
    Placed(NewOrder),
    /// The user paid it.
    Paid,
    /// It was handed to the carrier.
    Shipped,
    /// It arrived.
    Delivered,
    /// It was called off.
    Cancelled {
        /// The reason, if the request gave one.
        reason: Option<String>,
    },
}

impl Event {
    /// The state of an order after this event.
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

/// The error of a step that the order's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {} cannot become {}", from.as_str(), to.as_str())]
pub struct InvalidTransition {
    /// The order's state.
    pub from: Status,
    /// The state that the step leads to.
    pub to: Status,
}

impl Order {
    /// The first version of an order.
    pub fn place(id: Uuid, order: NewOrder, now: DateTime<Utc>) -> Self {
        let now = now.trunc_subsecs(6);
        let NewOrder { user_id, currency, items } = order;
        // Requests are limited to 100 items, 10^4 pieces and 10^9 minor units: the total stays exact in JSON.
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

    /// The order after `event`. Its time is never before the previous one's, even if another instance's clock is ahead.
    ///
    /// # Errors
    /// If the order's state does not allow the event.
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
