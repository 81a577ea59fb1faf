//! Where a service's tables are: in the source, which it shares, or in the target, a database of its own.
//!
//! splitctl moves them. In one transaction it takes the service's rights in the database that the tables leave, and writes a
//! row to `splitctl.switches` there. So a statement that comes too late is refused before it changes anything, and the
//! database that refused it knows why.

use sqlx::PgConnection;

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The database that the service shares, where the tables are before a move.
    Source,
    /// The service's own database, where the tables are after a move.
    Target,
}

impl Side {
    /// The name in the table `splitctl.switches`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// A switch: from this generation on, the tables are on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Counts the switches. The highest generation in both databases is valid.
    pub generation: i64,
    /// Where the tables are.
    pub side: Side,
}

impl Switch {
    /// The switch before any move.
    pub(crate) const NONE: Self = Self { generation: 0, side: Side::Source };
}

/// Whether this database has the table of the switches for this role. splitctl makes it, with the role's rights, before a
/// move. This asks the catalog: a statement on a table that is missing would be an error in the server's log.
#[expect(clippy::disallowed_methods, reason = "the same for each role")]
pub(crate) async fn has_switches(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
             select 1
             from pg_class c
             join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'splitctl'
               and c.relname = 'switches'
               and has_schema_privilege(n.oid, 'usage')
               and has_table_privilege(c.oid, 'select')
         )",
    )
    .fetch_one(connection)
    .await
}

/// Whether a statement failed because the table of the switches is missing, or its schema.
pub(crate) fn is_without_switches(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("42P01" | "3F000")))
}

/// The newest switch of `owner`'s tables in this database. `None` if they have not moved from here.
#[expect(clippy::disallowed_methods, reason = "the same for each role, and the table may be missing at compile time")]
pub(crate) async fn newest_switch(connection: &mut PgConnection, owner: &str) -> Result<Option<Switch>, sqlx::Error> {
    let newest = sqlx::query_as::<_, (i64, bool)>(
        "select generation, side = 'target'
         from splitctl.switches
         where owner = $1
         order by generation desc
         limit 1",
    );
    let found = newest.bind(owner).fetch_optional(connection).await?;
    Ok(found.map(|(generation, target)| {
        let side = if target { Side::Target } else { Side::Source };
        Switch { generation, side }
    }))
}
