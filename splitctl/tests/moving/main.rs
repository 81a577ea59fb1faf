//! The move of an owner's tables, from the outside: the program, two databases, and crashes.
#![allow(clippy::disallowed_methods, reason = "tests ask what no service would, and may block")]

mod across;
mod along;
mod app;
mod brought;
mod budget;
mod compared;
mod connections;
mod copies;
mod crashes;
mod detached;
mod failover;
mod fence;
mod fixture;
mod found;
mod hardships;
mod locks;
mod losses;
mod migrations;
mod neighbours;
mod not_ours;
mod plans;
mod pooler;
mod pooler_fake;
mod proof;
mod proof_kinds;
mod proof_sources;
mod proof_writes;
mod releases;
mod rights;
mod switchover;
mod there;
mod unowned;
mod verified;
mod waits;
