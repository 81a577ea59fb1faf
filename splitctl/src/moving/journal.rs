//! What is kept of a move: append-only rows in the schema `splitctl` of the source, and in both databases the switches,
//! which the services read. No credentials in either.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

use super::side::{Identity, Place};
use crate::database::execute;
use crate::names::Qualified;

/// What services of the owner need to read.
const SWITCHES: &str = "
    create schema if not exists splitctl;
    create table if not exists splitctl.switches (
        owner text not null,
        generation bigint not null,
        side text not null check (side in ('source', 'target')),
        at timestamptz not null default clock_timestamp(),
        constraint switches_pkey primary key (owner, generation)
    );
    comment on table splitctl.switches is 'Where an owner''s tables live from each switch on. A row is written in the transaction that closes the side it was written on; the highest generation over both databases holds.'";

const JOURNAL: &str = "
    create table if not exists splitctl.journal (
        id bigint generated always as identity,
        move integer not null,
        owner text not null,
        step text not null,
        event text not null check (event in ('intent', 'record')),
        detail jsonb not null,
        at timestamptz not null default clock_timestamp(),
        by_role text not null default session_user,
        constraint journal_pkey primary key (id)
    );
    comment on table splitctl.journal is 'What splitctl was about to do (intent) and has done (record). Append-only.'";

/// What was decided when the move began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// The owner's tables.
    pub tables: Vec<Qualified>,
    /// Which database they go to.
    pub target: Identity,
    /// Whether the target's tables were made by the move, and not there before.
    pub made_tables: bool,
    /// The shape of the tables then, relation by relation.
    pub shape: Vec<String>,
}

/// A move that is open.
#[derive(Debug, Clone)]
pub struct State {
    /// Its number.
    pub number: i32,
    /// What was decided at its begin.
    pub begun: Begun,
    /// Whether everything has been copied.
    pub copied: bool,
    /// Where the tables live.
    pub lives: Place,
    /// How many switches there have been.
    pub generation: i64,
    /// The generation that was last found equal on both sides.
    pub verified: Option<i64>,
    /// The step that was begun and not recorded as done.
    pub pending: Option<String>,
    /// Foreign keys that were taken off: table, name, definition.
    pub detached: Vec<Detached>,
}

/// A foreign key that was taken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// The table it was on.
    pub table: Qualified,
    /// Its name.
    pub name: String,
    /// As `pg_get_constraintdef` has it.
    pub definition: String,
}

impl State {
    /// The number of the stream from the side where the tables live to the other.
    pub fn stream(&self) -> i64 {
        self.generation + 1
    }

    /// Whether the rows were compared since the last switch.
    pub fn is_verified(&self) -> bool {
        self.verified == Some(self.generation)
    }
}

/// Makes the journal on the source.
pub async fn install(source: &mut PgConnection) -> Result<()> {
    execute(source, format!("set client_min_messages = warning; {JOURNAL}; reset client_min_messages")).await?;
    Ok(())
}

/// Makes what services read on a side, and lets the role read it: in one transaction, since a service that starts in between
/// would find what it may not read.
pub async fn install_switches(connection: &mut PgConnection, role: &str) -> Result<()> {
    let role = crate::names::quote_ident(role);
    let grants = format!("grant usage on schema splitctl to {role}; grant select on splitctl.switches to {role}");
    execute(connection, format!("set client_min_messages = warning; {SWITCHES}; {grants}; reset client_min_messages"))
        .await?;
    Ok(())
}

async fn has(connection: &mut PgConnection, table: &str) -> Result<bool> {
    Ok(sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(connection).await?)
}

/// What is about to be done, or has been.
pub async fn append(
    source: &mut PgConnection,
    number: i32,
    owner: &str,
    step: &str,
    event: &str,
    detail: &Value,
) -> Result<()> {
    let row = sqlx::query("insert into splitctl.journal (move, owner, step, event, detail) values ($1, $2, $3, $4, $5)");
    row.bind(number).bind(owner).bind(step).bind(event).bind(detail).execute(source).await?;
    Ok(())
}

/// The move that is open in the source, whoever's it is: its number and owner.
pub async fn open_move(source: &mut PgConnection) -> Result<Option<(i32, String)>> {
    if !has(source, "splitctl.journal").await? {
        return Ok(None);
    }
    let open = sqlx::query_as(
        "select j.move, min(j.owner)
         from splitctl.journal j
         group by j.move
         having not bool_or(j.step in ('complete', 'abort') and j.event = 'record')",
    );
    Ok(open.fetch_optional(source).await?)
}

/// The number for a new move.
pub async fn next_number(source: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("select coalesce(max(move), 0) + 1 from splitctl.journal").fetch_one(source).await?)
}

/// The newest switch that a database knows: generation and side.
pub async fn newest_switch(connection: &mut PgConnection, owner: &str) -> Result<Option<(i64, Place)>> {
    if !has(connection, "splitctl.switches").await? {
        return Ok(None);
    }
    let newest =
        sqlx::query("select generation, side from splitctl.switches where owner = $1 order by generation desc limit 1");
    let Some(row) = newest.bind(owner).fetch_optional(connection).await? else { return Ok(None) };
    let side: String = row.try_get(1)?;
    Ok(Some((row.try_get(0)?, if side == "target" { Place::Target } else { Place::Source })))
}

/// Reads the open move of the owner.
///
/// # Errors
/// The databases', or a journal that this version does not understand.
pub async fn read(source: &mut PgConnection, target: &mut PgConnection, owner: &str) -> Result<Option<State>> {
    let Some((number, by)) = open_move(source).await? else { return Ok(None) };
    if by != owner {
        return Ok(None);
    }
    let rows = sqlx::query("select step, event, detail from splitctl.journal where move = $1 order by id");
    let (mut begun, mut copied, mut verified, mut pending, mut detached) = (None, false, None, None, Vec::new());
    for row in rows.bind(number).fetch_all(&mut *source).await? {
        let (step, event, detail): (String, String, Value) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match (&*step, &*event) {
            ("copy", "intent") => begun = begun.or(Some(serde_json::from_value(detail)?)),
            ("copy", "record") => copied = true,
            ("verify", "record") => verified = detail["generation"].as_i64(),
            ("detach", "intent") => detached = serde_json::from_value(detail)?,
            ("attach", "record") => detached = Vec::new(),
            _ => {}
        }
        pending = (event == "intent").then_some(step);
    }
    let Some(begun) = begun else { return Ok(None) };
    let newest = newest_switch(source, owner).await?.max_by_generation(newest_switch(target, owner).await?);
    let (generation, lives) = newest.unwrap_or((0, Place::Source));
    Ok(Some(State { number, begun, copied, lives, generation, verified, pending, detached }))
}

trait MaxByGeneration {
    fn max_by_generation(self, other: Self) -> Self;
}

impl MaxByGeneration for Option<(i64, Place)> {
    fn max_by_generation(self, other: Self) -> Self {
        self.into_iter().chain(other).max_by_key(|(generation, _)| *generation)
    }
}

/// The detail of a verification.
pub fn verified(generation: i64, rows: u64) -> Value {
    json!({ "generation": generation, "rows": rows })
}
