//! The users service through its HTTP interface, on a database of the test's own, as the service's own role.

mod any_input;
mod changing;
mod events;
mod grpc;
mod home;
mod operations;
mod program;
mod reading;
mod registering;
mod remote;
mod rule;
mod support;
mod unavailable;
