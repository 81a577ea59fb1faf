//! Who may call both services, by tokens of an issuer of the test's own.

mod callers;
mod credentials;
mod grpc;
mod issuer;
mod keys;
mod program;
mod rates;
mod routes;
mod support;
mod together;
mod tokens;
