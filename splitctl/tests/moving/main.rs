//! The move of an owner's tables, from the outside: the program, two databases, and a crash now and then.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

mod app;
mod crashes;
mod hardships;
mod losses;
mod not_ours;
mod place;
