//! What the benchmark shares with `cargo xtask bench` and with the servers that it compares the services with.

#![warn(missing_docs)]

pub mod minimal;
mod options;
pub mod statements;

pub use options::{Format, Options};
