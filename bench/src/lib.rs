//! What the benchmark shares with `cargo xtask bench` and with the server that it compares the services with.

#![warn(missing_docs)]

mod options;
pub mod statements;

pub use options::{Format, Options};
