//! The port to users: who are an order's customers?

use clap::ValueEnum;
use uuid::Uuid;

/// The dial `CUSTOMERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `customers` in the service's own database: joined in the statement that reads the order, and
    /// guarding the one that places it.
    Local,
}

/// Who placed an order, as orders sees it.
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
