//! A customer: a user, as orders sees it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An order's customer, as users gives it and as clients of orders see it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Customer {
    /// The user's id.
    pub id: Uuid,
    /// The user's name.
    pub name: String,
    /// `active` or `deactivated`.
    pub status: String,
    /// The user's version. Clients see it in the entity tag alone.
    #[serde(skip_serializing)]
    #[schema(ignore)]
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
