//! Both sides, as the workers of a comparison reach them: each worker has a session of its own on either side.

use anyhow::Result;
use futures_util::future::try_join_all;
use sqlx::PgConnection;

use crate::moving::Database;

/// What all workers share.
pub struct Sides<'a> {
    /// The side where the tables live.
    pub from: &'a Database,
    /// The side that the stream goes to.
    pub to: &'a Database,
    /// The owner, whose marker the stream carries.
    pub owner_name: &'a str,
}

/// The sessions of one worker.
pub struct Pair {
    pub from: PgConnection,
    pub to: PgConnection,
}

impl Sides<'_> {
    /// Opens the sessions of one worker.
    pub async fn connect(&self) -> Result<Pair> {
        let (from, to) = tokio::join!(self.from.connect(), self.to.connect());
        Ok(Pair { from: from?, to: to? })
    }

    /// Opens the sessions of so many workers.
    pub async fn connect_all(&self, jobs: u8) -> Result<Vec<Pair>> {
        try_join_all((0..jobs.max(1)).map(|_| self.connect())).await
    }
}
