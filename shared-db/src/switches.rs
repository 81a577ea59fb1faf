//! Where a service's tables live: in the database of before, the source, or in one of its own, the target. Whoever moves them
//! says so in the table `splitctl.switches`, in the database that is left, in the transaction that takes the service's rights
//! there away. So a statement that comes too late is refused having done nothing, and finds the reason where it was refused.

use sqlx::PgConnection;

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the tables were before any move.
    Source,
    /// Where they live after one.
    Target,
}

impl Side {
    /// Its name, as the table has it.
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

/// A switch: from this generation on, the tables live on that side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// The highest over both databases is the one that counts.
    pub generation: i64,
    /// Where the tables live.
    pub side: Side,
}

impl Switch {
    /// What holds as long as nothing has been moved.
    pub(crate) const NONE: Self = Self { generation: 0, side: Side::Source };
}

/// The newest switch of `owner`'s tables that this database knows of; `None` if it never heard of a move.
#[expect(clippy::disallowed_methods, reason = "the same for each role; at compile time there need be no such table")]
pub(crate) async fn newest_switch(connection: &mut PgConnection, owner: &str) -> Result<Option<Switch>, sqlx::Error> {
    let newest = sqlx::query_as::<_, (i64, bool)>(
        "select generation, side = 'target'
         from splitctl.switches
         where owner = $1
         order by generation desc
         limit 1",
    );
    match newest.bind(owner).fetch_optional(connection).await {
        Ok(found) => Ok(found.map(|(generation, target)| {
            let side = if target { Side::Target } else { Side::Source };
            Switch { generation, side }
        })),
        // No such table, no such schema.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P01" | "3F000")) => Ok(None),
        Err(error) => Err(error),
    }
}
