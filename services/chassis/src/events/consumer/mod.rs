//! The consumer of another service's events.

pub(super) mod feed;
pub(super) mod inbox;
mod replica;

pub use feed::{Feed, FollowError, Pages};
pub use inbox::{Inbox, Received, observe, storable};
pub use replica::{Command, Replica, follow, run};
