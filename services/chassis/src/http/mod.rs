//! The parts of every HTTP interface: requests, answers, pages, problems, health, and the server.

pub(crate) mod addresses;
pub mod body;
pub mod conditional;
pub mod cors;
pub mod cursor;
pub mod document;
pub mod json;
pub mod limited;
pub mod limits;
pub(crate) mod meaning;
pub mod operations;
pub mod page;
pub mod path;
pub mod problem;
pub mod query;
pub mod rate;
pub mod request;
pub mod router;
mod security;
pub mod serve;
mod stream;
pub(crate) mod timer;
mod work;
