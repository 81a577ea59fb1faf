//! What a switch would open a side with, for a proof that tries it and rolls it back.

use anyhow::Result;
use sqlx::query_scalar;

use super::sequences::{self, Sequence};
use super::side::{Database, Side};
use super::{Move, fence, relations, rights};
use crate::database::execute;
use crate::names::Qualified;

/// What makes a side usable for the application: nothing where the tables live.
#[derive(Debug, Default)]
pub struct Opening {
    /// Statements that grant the rights.
    pub grants: Vec<String>,
    /// Statements that let writers pass the fence.
    pub reopen: Vec<String>,
}

impl Move {
    /// The side where the tables live.
    pub fn lives(&self) -> Side {
        self.state.switch.lives
    }

    /// Whether the next switch is the first one to this side.
    pub fn is_first_switch(&self, to: Side) -> bool {
        self.state.switch.generation == i64::from(to == Side::Source)
    }

    /// The connected database of a side.
    pub fn database(&mut self, side: Side) -> &mut Database {
        side.order(&mut self.source, &mut self.target).0
    }

    /// The owner's tables, their partitions, and its views, as a side has them.
    pub async fn relations(&mut self, side: Side) -> Result<Vec<Qualified>> {
        let relations = self.owner.relations();
        Ok(relations::with_partitions(&mut self.database(side).connection, &relations).await?)
    }

    /// The role that stands on this side for the application's role.
    pub fn role(&self, side: Side) -> &str {
        let role = &self.owner.role;
        if side == Side::Target { self.owner.on_target(role) } else { role }
    }

    /// Whether the role also works for others: another owner has it, or it owns a table that stays on this side.
    pub async fn shares_role(&mut self, side: Side) -> Result<bool> {
        let (role, owner) = (self.role(side).to_owned(), self.owner.clone());
        let others = self.manifest.owners.iter().filter(|(name, _)| **name != self.owner_name);
        if others.into_iter().any(|(_, other)| other.role == owner.role) {
            return Ok(true);
        }
        let connection = &mut self.database(side).connection;
        let moving = relations::oids(connection, &owner.relations()).await?;
        Ok(query_scalar(OWNS_OTHERS).bind(moving).bind(role).fetch_one(connection).await?)
    }

    /// The sequences that the tables use.
    pub async fn sequences(&mut self, side: Side) -> Result<Vec<Sequence>> {
        let owner = self.owner.clone();
        sequences::read(&mut self.database(side).connection, &owner).await
    }

    /// Sets the sequences of a side to what they are on the other one, as a switch does: they do not follow before it.
    pub async fn advance_sequences(&mut self, side: Side) -> Result<()> {
        let (to, from) = side.order(&mut self.source, &mut self.target);
        let sequences = sequences::list(&mut from.connection, &self.owner).await?;
        let reading = sequences::reading(&mut from.connection, &sequences).await?;
        sequences::set_ahead(&mut from.connection, &mut to.connection, reading.as_deref()).await?;
        Ok(())
    }

    /// Sets the sequences that have been drawn from since then to what they were.
    pub async fn put_back_sequences(&mut self, side: Side, before: &[Sequence]) -> Result<()> {
        let after = self.sequences(side).await?;
        let drawn = before.iter().filter(|sequence| !after.contains(sequence));
        let sets: Vec<String> = drawn.map(Sequence::putting_back).collect();
        if !sets.is_empty() {
            execute(&mut self.database(side).connection, sets.join("; ")).await?;
        }
        Ok(())
    }

    /// What the next switch would open a side with.
    pub async fn opening(&mut self, side: Side) -> Result<Opening> {
        if self.lives() == side {
            return Ok(Opening::default());
        }
        let Self { owner, owner_name, source, target, state, .. } = self;
        let (to, from) = side.order(source, target);
        let closing = rights::read(&mut from.connection, owner).await?.grants;
        let opening = rights::read(&mut to.connection, owner).await?.grants;
        let kept = state.kept.for_switch(owner, side, &closing, &opening);
        let grants = rights::known_to(to, kept.opening(owner, side)).await?;
        let fenced = relations::select_lines(&mut to.connection, fence::FENCED_BY_VERSION_1, &owner.tables).await?;
        let mut reopen: Vec<String> = fenced.iter().map(|table| fence::UNFENCE.replace("{}", table)).collect();
        reopen.push(fence::open(owner_name));
        Ok(Opening { grants, reopen })
    }
}

const OWNS_OTHERS: &str = r"
    select exists (
        select
        from pg_class c
        join pg_roles r on r.oid = c.relowner
        where r.rolname = $2
          and c.relkind in ('r', 'p', 'v', 'm')
          and c.oid <> all ($1)
    )";
