//! `splitctl`: the way out of a shared Postgres. It reads a manifest of owners, shows what couples them, ends
//! borrowings, and moves one owner's tables to a database of their own: online, verified, and with a way back.

#![allow(clippy::disallowed_methods, reason = "it works on any schema, so no statement can be checked at compile time")]

mod audit;
mod commands;
mod database;
mod endpoint;
mod exit;
mod grants;
mod init;
mod manifest;
mod moving;
mod names;
mod output;
mod proof;
mod rehearsal;
mod replacement;
mod sizes;
mod sockets;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    commands::run().await
}
