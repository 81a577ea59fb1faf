//! A Postgres for development and tests: private clusters on free ports, and a database of its own for every test.
//!
//! Nothing here serves production. Functions block, and may be called from asynchronous code all the same: what they
//! wait for runs on threads of its own.

#![allow(clippy::disallowed_methods, reason = "this crate blocks, asks what no service owns, and runs in no service")]

mod block;
mod cluster;
mod database;
mod leash;
mod owner;
mod programs;

pub use block::block_on;
pub use cluster::{Cluster, ClusterError};
pub use database::{ORDERS_BASELINE, ORDERS_ROLE, TestDatabase, USERS_BASELINE, USERS_ROLE, connect, with_role};
pub use leash::{Ended, Leashed, Signal};
pub use owner::server_user_can_enter;
pub use programs::{NotFound, Programs};
