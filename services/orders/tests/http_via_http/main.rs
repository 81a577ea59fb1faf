//! The suite of `tests/http` under the dial `CUSTOMERS_VIA=http`, and what concerns the remote dials.

#[path = "../http/any_input.rs"]
mod any_input;
#[path = "../http/as_of.rs"]
mod as_of;
#[path = "../http/events.rs"]
mod events;
#[path = "../http/idempotency.rs"]
mod idempotency;
#[path = "../http/operations.rs"]
mod operations;
#[path = "../http/placing.rs"]
mod placing;
#[path = "../http/reading.rs"]
mod reading;
#[path = "../http/rule.rs"]
mod rule;
#[path = "../http/steps.rs"]
mod steps;
#[path = "../http/support.rs"]
mod support;
#[path = "../http/unavailable.rs"]
mod unavailable;

#[path = "../remote/remote.rs"]
mod remote;
#[path = "../remote/shadow.rs"]
mod shadow;

mod dial;
mod fake_users;
mod gateway;
