//! The users service through its HTTP interface, on a database of the test's own, as the service's own role.

mod admin;
mod any_input;
mod archive;
mod changing;
mod connections;
mod contract;
mod events;
mod exhausting;
mod frozen;
mod grpc;
mod home;
mod meaning;
mod operations;
mod pooler;
mod program;
mod reading;
mod registering;
mod remote;
mod requests;
mod rule;
mod sharing;
mod support;
mod unavailable;
