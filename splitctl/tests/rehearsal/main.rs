//! `splitctl rehearse`, from the outside: the program, two clusters, and a schema that is not this project's.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

#[path = "../moving/fixture.rs"]
#[allow(dead_code, reason = "the tests of moves use the rest")]
mod fixture;

mod ends;
mod found;
mod page;
mod sampled;
mod shop;
mod unchanged;
