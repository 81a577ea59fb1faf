//! The switches: which side an owner's tables live on. Services read them, so the table is a contract.

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::side::Side;
use crate::database::execute;
use crate::names::{quote_ident, quote_literal};

/// The table, with a comment for those who write services.
const CONTRACT: &str = include_str!("../../contract/switches.sql");

/// A switch.
#[derive(Debug, Clone, Default, FromRow)]
pub struct Switch {
    /// Its number.
    pub generation: i64,
    /// The side where the tables live from then on.
    pub lives: Side,
    /// Where the stream to the other side begins, in the WAL of the side where the tables live.
    pub way_back: Option<String>,
}

impl Switch {
    /// The statement that writes this switch.
    pub fn statement(&self, owner_name: &str) -> String {
        let owner = quote_literal(owner_name);
        let way_back = self.way_back.as_ref().map_or("null".to_owned(), |lsn| quote_literal(lsn));
        format!(
            "insert into splitctl.switches (owner, generation, side, way_back)
             values ({owner}, {}, '{}', {way_back})
             on conflict do nothing",
            self.generation, self.lives
        )
    }
}

/// Creates the table and lets the role read it. Both happen in one transaction: a service that starts in between would find
/// a table that it may not read.
pub async fn install(connection: &mut PgConnection, role: &str) -> Result<()> {
    let role = quote_ident(role);
    let grants = format!("grant usage on schema splitctl to {role}; grant select on splitctl.switches to {role}");
    Ok(execute(connection, format!("{CONTRACT}\n{grants}")).await?)
}

/// The newest switch of an owner that a database knows.
pub async fn find_newest(connection: &mut PgConnection, owner_name: &str) -> Result<Option<Switch>> {
    let exists = query_scalar("select to_regclass('splitctl.switches') is not null");
    if !exists.fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    Ok(query_as(NEWEST).bind(owner_name).fetch_optional(connection).await?)
}

const NEWEST: &str = r"
    select generation, side as lives, way_back::text as way_back
    from splitctl.switches
    where owner = $1
    order by generation desc
    limit 1";
