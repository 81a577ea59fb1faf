//! The two databases of a move.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row};

use crate::database::{connect, version};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The shared database.
    Source,
    /// The owner's own.
    Target,
}

impl Place {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }

    /// As the services read it in `splitctl.switches`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which database it is, wherever it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of the cluster, given by initdb.
    pub system: String,
    /// Of the database in it.
    pub database: i64,
}

/// One of the two, connected.
pub struct Side {
    /// Which.
    pub place: Place,
    /// For this program.
    pub url: String,
    /// For the server of the other side.
    pub url_from_other: String,
    /// Which database it really is.
    pub identity: Identity,
    /// The server's major version.
    pub version: i32,
    /// Whether we may do all.
    pub superuser: bool,
    /// An operator's session.
    pub connection: PgConnection,
}

impl Side {
    pub(super) async fn open(place: Place, url: String, url_from_other: String) -> Result<Self> {
        let mut connection = connect(&url).await?;
        let version = version(&mut connection).await?;
        let row = sqlx::query(
            "select (select system_identifier::text from pg_control_system()),
                    (select oid::bigint from pg_database where datname = current_database()),
                    (select rolsuper from pg_roles where rolname = current_user)",
        );
        let row = row.fetch_one(&mut connection).await?;
        let identity = Identity { system: row.try_get(0)?, database: row.try_get(1)? };
        Ok(Self { place, url, url_from_other, identity, version, superuser: row.try_get(2)?, connection })
    }
}
