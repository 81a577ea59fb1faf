//! The orders service through its HTTP interface, on a database of the test's own, as the service's own role.

mod any_input;
mod as_of;
mod contract;
mod dial;
mod events;
mod idempotency;
mod logged;
mod nameless;
mod operations;
mod placing;
mod program;
mod reading;
mod rule;
mod steps;
mod support;
mod tls;
mod unavailable;
mod versions;
