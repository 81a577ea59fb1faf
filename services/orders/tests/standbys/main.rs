//! The service with a standby: a second server with streaming replication.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

mod failures;
mod pair;
mod promotion;
mod tokens;
