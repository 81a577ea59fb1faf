//! Five schemas that are not ours move out and back, while their application works.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

mod application;
#[allow(dead_code, reason = "the other test program uses all of it")]
#[path = "../moving/fixture.rs"]
mod fixture;
mod forum;
mod journey;
mod partitions;
mod pgbench;
mod policies;
mod rails;
