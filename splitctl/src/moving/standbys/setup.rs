//! How a standby is set up, and what it lacks to get the slots of its primary.

use sqlx::{FromRow, PgConnection, query_as};

/// What decides whether a standby gets the slots of its primary.
#[derive(Debug, Clone, Default, FromRow)]
pub struct Setup {
    /// Whether it is one.
    pub is_standby: bool,
    /// The system identifier of its cluster.
    pub system: String,
    /// The physical slot that it uses on its primary; empty if it uses none.
    pub slot: String,
    /// `sync_replication_slots`.
    pub synchronises: bool,
    feeds_back: bool,
    /// Whether `primary_conninfo` names a database. `None` if splitctl's role may not read it.
    names_database: Option<bool>,
    wal_level: String,
}

impl Setup {
    /// Reads it from a server of Postgres 17 or newer.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        query_as(SETUP).fetch_one(connection).await
    }

    /// What it lacks to get slots, with what to do there.
    pub fn lacking(&self) -> Vec<&'static str> {
        let all = [
            (
                !self.synchronises,
                "sync_replication_slots is off: `alter system set sync_replication_slots = on` there, and reload",
            ),
            (
                !self.feeds_back,
                "hot_standby_feedback is off: `alter system set hot_standby_feedback = on` there, and reload",
            ),
            (
                self.slot.is_empty(),
                "primary_slot_name is not set: create a slot on the primary by `select \
                 pg_create_physical_replication_slot('standby')`, `alter system set primary_slot_name = 'standby'` there, \
                 and reload",
            ),
            (
                self.names_database == Some(false),
                "primary_conninfo names no database: add `dbname=postgres` to it there, and reload",
            ),
            (
                self.wal_level != "logical",
                "wal_level is not logical: `alter system set wal_level = logical` there, and restart",
            ),
        ];
        all.into_iter().filter(|(lacks, _)| *lacks).map(|(_, what)| what).collect()
    }
}

/// `primary_conninfo` is a list of pairs, or a URL.
const SETUP: &str = r"
    select
        pg_is_in_recovery() as is_standby,
        (select system_identifier::text from pg_control_system()) as system,
        current_setting('primary_slot_name') as slot,
        current_setting('sync_replication_slots')::boolean as synchronises,
        current_setting('hot_standby_feedback')::boolean as feeds_back,
        (
            select s.setting ~ '(^|\s)dbname\s*=\s*[^\s]'
                or s.setting ~ '^postgres(ql)?://[^/?]*/[^?]'
                or s.setting ~ '^postgres(ql)?://.*[?&]dbname=[^&]'
            from pg_settings s
            where s.name = 'primary_conninfo'
        ) as names_database,
        current_setting('wal_level') as wal_level";
