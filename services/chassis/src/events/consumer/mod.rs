//! The consumer of another service's events.

pub(super) mod feed;
pub(super) mod inbox;
pub(crate) mod lag;
pub(crate) mod loss;
mod replica;

pub use feed::{Feed, FollowError, Pages};
pub use inbox::{Cursor, Inbox, Received, storable};
pub use lag::Follower;
pub use replica::{Command, Replica, follow, run};
