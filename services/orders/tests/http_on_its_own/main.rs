//! The suite of `tests/http` on a database that holds nothing but what is orders'. But for `rule`: the shared database alone
//! keeps the rule exactly. `replicas.rs` shows that the rule holds in the end without it.

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
#[path = "../http/steps.rs"]
mod steps;
#[expect(dead_code, reason = "shared with suites that use all of it")]
#[path = "../http/support.rs"]
mod support;
#[path = "../http/unavailable.rs"]
mod unavailable;

mod dial;
