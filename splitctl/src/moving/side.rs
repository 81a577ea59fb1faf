//! The two sides of a move, and the database on each.

use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, query_as};

use crate::database::{address, choose, connect, connect_with, execute, version};
use crate::endpoint::{Endpoint, each_host};
use crate::manifest::Owner;

/// One of the two databases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Side {
    /// The shared database.
    #[default]
    Source,
    /// The owner's own database.
    Target,
}

impl Side {
    /// The opposite side.
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }

    /// The role that the owner's application has on this side.
    pub fn role_of(self, owner: &Owner) -> &str {
        match self {
            Self::Source => &owner.role,
            Self::Target => owner.on_target(&owner.role),
        }
    }

    /// Orders two databases: the one on this side first.
    pub fn order<'a>(self, source: &'a mut Database, target: &'a mut Database) -> (&'a mut Database, &'a mut Database) {
        match self {
            Self::Source => (source, target),
            Self::Target => (target, source),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Identifies a database, whatever address it is reached by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, FromRow)]
pub struct Identity {
    /// The cluster's system identifier, which `initdb` generates.
    pub system: String,
    /// The oid of the database in its cluster.
    pub database: i64,
}

/// A connected database.
pub struct Database {
    /// Its side.
    pub side: Side,
    /// The URL for splitctl: of one host, if there are several.
    pub url: String,
    /// The address for the server of the other side, with all hosts.
    pub from_other: Endpoint,
    /// The URLs of servers that may be its standbys: the other hosts, and those that the manifest names.
    pub standbys: Vec<String>,
    /// What identifies it.
    pub identity: Identity,
    /// The server's major version.
    pub version: i32,
    /// Whether splitctl's role is a superuser.
    pub superuser: bool,
    /// The operator's session.
    pub connection: PgConnection,
}

impl Database {
    /// Connects, and reads what the server says of itself.
    pub async fn open(side: Side, url: String, from_other: Endpoint) -> Result<Self> {
        let mut standbys = each_host(&url);
        let url = choose(&url).await?;
        standbys.retain(|host| *host != url);
        let mut connection = connect(&url).await?;
        let version = version(&mut connection).await?;
        let Server { identity, superuser } = query_as(SERVER).fetch_one(&mut connection).await?;
        silence(&mut connection, superuser).await?;
        Ok(Self { side, url, from_other, standbys, identity, version, superuser, connection })
    }

    /// Connects to a database that no other server connects to.
    pub async fn open_alone(side: Side, url: &str) -> Result<Self> {
        Self::open(side, url.to_owned(), Endpoint::of_this_process(url)?).await
    }

    /// Opens a second session, beside one that holds locks.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.connect_with(None).await
    }

    /// Does the same, with a setting that only this session knows.
    pub async fn connect_with(&self, setting: Option<(&str, &str)>) -> Result<PgConnection> {
        let mut connection = connect_with(&self.url, setting).await?;
        silence(&mut connection, self.superuser).await?;
        Ok(connection)
    }

    /// For messages: its side, host, port and name.
    pub fn address(&self) -> String {
        format!("{} ({})", self.side, address(&self.url))
    }
}

/// Keeps the database's own event triggers out of a session: they are the application's code, and no superuser runs that.
/// Only a superuser may do so; the plan names the event triggers that fire all the same.
async fn silence(connection: &mut PgConnection, superuser: bool) -> Result<(), sqlx::Error> {
    if superuser { execute(connection, "set session_replication_role = replica").await } else { Ok(()) }
}

#[derive(FromRow)]
struct Server {
    #[sqlx(flatten)]
    identity: Identity,
    superuser: bool,
}

const SERVER: &str = r"
    select
        (select system_identifier::text from pg_control_system()) as system,
        (select oid::int8 from pg_database where datname = current_database()) as database,
        (select rolsuper from pg_roles where rolname = current_user) as superuser";
