//! The move of an owner's tables, from the outside: the program, two databases, and crashes.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

mod along;
mod app;
mod compared;
mod crashes;
mod detached;
mod fence;
mod fixture;
mod hardships;
mod losses;
mod not_ours;
mod plans;
mod releases;
mod unowned;
