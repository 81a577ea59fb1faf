//! The suite of `tests/http` with the replica of the customers behind the view. But for `rule`: that it is exact is what the
//! shared database gives; that it settles without, `replicas.rs` shows.

#[path = "../http/any_input.rs"]
mod any_input;
#[path = "../http/as_of.rs"]
mod as_of;
#[path = "../http/events.rs"]
mod events;
#[path = "../http/idempotency.rs"]
mod idempotency;
#[path = "../http/nameless.rs"]
mod nameless;
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
