//! A customer: a user, as orders sees it.

use uuid::Uuid;

/// The user who placed an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// The user's id.
    pub id: Uuid,
    /// The user's name.
    pub name: String,
    /// `active` or `deactivated`.
    pub status: String,
    /// The user's version.
    pub version: i64,
}

/// What the service knows about the customer of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The user exists.
    Found(Customer),
    /// The user does not exist.
    Unknown,
    /// Users does not answer.
    Unavailable,
}

impl From<Option<Customer>> for Lookup {
    fn from(customer: Option<Customer>) -> Self {
        customer.map_or(Self::Unknown, Self::Found)
    }
}
