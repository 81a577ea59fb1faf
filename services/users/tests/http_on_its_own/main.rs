//! The suite of `tests/http` on a database that holds nothing but what is users'. But for `rule`, which the shared database
//! alone keeps exactly, and for what concerns no tables.

#[path = "../http/any_input.rs"]
mod any_input;
#[path = "../http/archive.rs"]
mod archive;
#[path = "../http/changing.rs"]
mod changing;
#[path = "../http/events.rs"]
mod events;
#[path = "../http/grpc.rs"]
mod grpc;
#[path = "../http/operations.rs"]
mod operations;
#[path = "../http/reading.rs"]
mod reading;
#[path = "../http/registering.rs"]
mod registering;
#[path = "../http/support.rs"]
mod support;
#[path = "../http/unavailable.rs"]
mod unavailable;

mod home;
