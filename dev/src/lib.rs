//! What tests and developers' commands need, and production does not: a private Postgres, an HTTP client, child processes.
//!
//! Functions of [`postgres`] and [`process`] block, and may be called from asynchronous code all the same: what they wait
//! for runs on threads of its own.

#![allow(clippy::disallowed_methods, reason = "this crate blocks, asks what no service owns, and runs in no service")]

pub mod http;
pub mod postgres;
pub mod process;
pub mod wait;
