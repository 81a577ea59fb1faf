//! The part of a run on a standby.

use tokio::time::Instant;

use super::Run;
use crate::database::Database;
use crate::pool::Connection;
use crate::standbys::{Fallback, Standby, Transaction};

/// Where a statement runs.
pub(super) enum Server<'a> {
    /// On the primary.
    Primary,
    /// On a standby that has this transaction, if there is one.
    Any(Option<Transaction>),
    /// On this standby.
    Standby(&'a Standby),
}

impl<'a> Run<'a> {
    /// On `database`, or on a standby of it that has the transaction `after`.
    pub fn reading(database: &'a Database, after: Option<(i64, i64)>) -> Self {
        let after = after.map(Transaction::from);
        let may_be_older = database.standbys().is_some() && after != Some(Transaction::NEWEST);
        Self { server: if may_be_older { Server::Any(after) } else { Server::Primary }, ..Self::on(database) }
    }

    /// A connection to a standby. `None` if the primary is to be read.
    pub(super) async fn standby(&mut self, after: Option<Transaction>) -> Option<Connection> {
        let standbys = self.database.standbys()?;
        match standbys.connection(self.database.switch_of_reads(), after, standbys.limit(self.begun)).await {
            Ok((standby, held)) => {
                self.server = Server::Standby(standby);
                Some(held)
            }
            Err(reason) => {
                self.turn_to_primary(reason);
                None
            }
        }
    }

    /// Reads from the primary, which gets its full time.
    fn turn_to_primary(&mut self, reason: Fallback) {
        if let Some(standbys) = self.database.standbys() {
            standbys.count(Err(reason));
        }
        self.server = Server::Primary;
        self.begun = Instant::now();
    }

    /// Leaves the standby. A cancelled statement says nothing against it.
    pub(super) fn leave_standby(&mut self, reason: Fallback, refused: Connection) {
        match (reason, &self.server) {
            // Recovery goes on cancelling until the statement has ended. What comes after that ends the connection, so it
            // is checked before it returns to the pool.
            (Fallback::Cancelled, _) => drop(refused),
            (_, Server::Standby(standby)) => {
                drop(refused.close(Ok(())));
                standby.note_failure(reason);
            }
            _ => {}
        }
        self.turn_to_primary(reason);
    }
}
