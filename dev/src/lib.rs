//! Tools of the tests and of the developers' commands: a private Postgres, an HTTP client, child processes, waiting.
//!
//! Functions of [`postgres`] and [`process`] block. Asynchronous code may call them too, because their own work runs on
//! threads of its own.

#![warn(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "this crate blocks and runs any SQL, but in no service")]

pub mod http;
pub mod postgres;
pub mod process;
pub mod wait;
