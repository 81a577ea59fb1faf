//! `orders events archive`: what it takes from the log, who notices, and what a crash leaves.

#![allow(clippy::disallowed_methods, reason = "tests ask the database what no service would")]

#[path = "../http/dial.rs"]
mod dial;
#[path = "../splitctl/mod.rs"]
mod splitctl;
#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "../http/support.rs"]
mod support;

mod both;
mod crashes;
mod log;
mod program;
mod readers;
