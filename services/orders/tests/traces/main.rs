//! Traces of both services, as a collector sees them.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

mod collector;
mod off;
mod one_trace;
mod sampled;
mod signals;
mod support;
mod unreachable;
