//! Tools of the tests and of the developers' commands: private servers of Postgres and RabbitMQ, an HTTP
//! client, an issuer of tokens, an address whose server changes, child processes, waiting.
//!
//! Functions of [`postgres`] and [`process`] block. Asynchronous code may call them too, because their own work runs on
//! threads of its own.

#![warn(missing_docs)]
#![allow(clippy::disallowed_methods, reason = "this crate blocks and runs any SQL, but in no service")]

pub mod address;
pub mod http;
pub mod issuer;
pub mod postgres;
pub mod process;
pub mod rabbitmq;
pub mod tls;
pub mod wait;
