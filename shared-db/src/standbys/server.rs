//! What a server says of itself: whose copy it is, and how far it has got.

use sqlx::{FromRow, PgConnection};

/// How far a server had got when it was asked. A primary and its standbys answer the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(super) struct Server {
    /// Of the cluster. Its standbys have the same.
    system: i64,
    /// Of the database in the cluster.
    database: i64,
    /// When the server was started, in microseconds. No two servers share it.
    pub(super) started: i64,
    pub(super) is_standby: bool,
    /// The end of the WAL on the primary's disk, or of the WAL that a standby has replayed.
    wal: i64,
    /// The oldest transaction under way.
    oldest: i64,
    /// The number behind the newest transaction that has ended.
    next: i64,
}

const QUESTION: &str = r"
    select
        (select system_identifier from pg_control_system()) as system,
        (select oid::bigint from pg_database where datname = current_database()) as database,
        (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as started,
        pg_is_in_recovery() as is_standby,
        (
            case
                when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                else pg_current_wal_flush_lsn()
            end - '0/0'::pg_lsn
        )::bigint as wal,
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest,
        pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
";

impl Server {
    /// Asks the server that a connection leads to.
    #[expect(clippy::disallowed_methods, reason = "no statement on a table, and the same for each role")]
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(QUESTION).fetch_one(connection).await
    }

    /// Whether it is a standby of `primary`, or `primary` itself. A standby that was promoted is neither.
    pub(super) fn is_copy_of(&self, primary: &Self) -> bool {
        let is_same_database = self.system == primary.system && self.database == primary.database;
        is_same_database && (self.is_standby || self.started == primary.started)
    }

    /// Whether it has everything that was committed when the primary answered `earlier`.
    ///
    /// The end of the WAL on disk may be in the middle of a record, which no standby replays before its rest has come. On an
    /// idle primary that takes up to 15 s. But then no transaction is under way, and the numbers of transactions are exact.
    pub(super) fn has(&self, earlier: &Self) -> bool {
        self.wal >= earlier.wal || (earlier.oldest == earlier.next && self.oldest >= earlier.next)
    }

    /// Whether it has WAL that the primary did not have when it answered `later`. Then it does not follow this primary.
    pub(super) fn is_ahead_of(&self, later: &Self) -> bool {
        self.wal > later.wal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(is_standby: bool, wal: i64, oldest: i64, next: i64) -> Server {
        Server { system: 1, database: 2, started: i64::from(is_standby), is_standby, wal, oldest, next }
    }

    #[test]
    fn a_promoted_standby_and_another_database_are_no_copies() {
        let primary = server(false, 100, 7, 7);
        assert!(server(true, 1, 1, 1).is_copy_of(&primary) && primary.is_copy_of(&primary));
        assert!(!Server { started: 9, ..primary }.is_copy_of(&primary), "promoted");
        assert!(!Server { database: 9, ..server(true, 100, 7, 7) }.is_copy_of(&primary));
        assert!(!Server { system: 9, ..server(true, 100, 7, 7) }.is_copy_of(&primary));
    }

    #[test]
    fn a_standby_has_what_it_has_replayed_and_on_an_idle_primary_what_has_ended() {
        let busy = server(false, 100, 5, 7);
        assert!(server(true, 100, 5, 7).has(&busy));
        assert!(!server(true, 99, 7, 7).has(&busy), "7 may not be the last that ended");
        let idle = server(false, 100, 7, 7);
        assert!(server(true, 99, 7, 7).has(&idle));
        assert!(!server(true, 99, 6, 7).has(&idle));
        assert!(server(true, 101, 7, 7).is_ahead_of(&idle) && !server(true, 100, 7, 7).is_ahead_of(&idle));
    }
}
