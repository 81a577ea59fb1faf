//! What the journal keeps of a migration that was begun.

use serde::{Deserialize, Serialize};

/// Where a statement runs, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// First on the side that receives the stream: it adds something, or the stream does not care.
    ReceiverFirst,
    /// First on the side that sends the stream, and on the other one after all that was sent before: it takes away.
    SenderFirst,
    /// Only where the tables live: the stream carries the rows, and the switch the rights.
    SenderOnly,
    /// A setting of both sessions.
    Session,
}

/// A statement's way, as the journal keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Planned {
    /// Where it runs first.
    pub way: Way,
    /// What the side that receives gives up before, because the sender's rows come without it for a moment.
    pub before: Vec<String>,
    /// Whether it runs outside of a transaction.
    pub is_alone: bool,
}

impl Planned {
    pub fn going(way: Way) -> Self {
        Self { way, before: Vec::new(), is_alone: false }
    }
}

/// A migration that was begun. The journal has no statement of it: one could hold a password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// The hash of its text.
    pub id: String,
    /// The arguments of the command that continues it.
    pub again: String,
    /// The way of each statement.
    pub statements: Vec<Planned>,
}
