//! A Postgres for development and tests: private clusters on free ports, and a database of its own for every test.

mod cluster;
mod database;
mod download;
pub(crate) mod owner;
mod programs;
mod scram;

pub use cluster::{Cluster, Frozen};
pub use database::{
    ORDERS_BASELINE, ORDERS_ROLE, TestDatabase, USERS_BASELINE, USERS_ROLE, allow_login, connect, create_database, until,
    with_role,
};
pub use download::DownloadError;
pub use owner::server_user_can_enter;
pub use programs::{MissingClient, Programs, ProgramsError};
