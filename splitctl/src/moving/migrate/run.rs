//! Runs the statements of a migration, each once on each side.

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use super::files::with_applications_path;
use super::planned::{Planned, Way};
use super::script::Statement;
use crate::database::{execute, fetch};
use crate::moving::fence::{self, Locking};
use crate::moving::{Move, crash_point, definitions, verify};
use crate::names::{quote_ident, quote_literal};

/// A migration that runs.
pub struct Run<'a> {
    the_move: &'a mut Move,
    id: &'a str,
    locking: Locking,
    /// The sessions in which the statements run.
    from: PgConnection,
    to: PgConnection,
}

impl<'a> Run<'a> {
    /// Opens the sessions.
    pub async fn open(the_move: &'a mut Move, id: &'a str, locking: Locking) -> Result<Self> {
        let lives = the_move.state.switch.lives;
        let (from, to) = lives.order(&mut the_move.source, &mut the_move.target);
        let (mut sender, receiver) = (with_applications_path(from).await?, with_applications_path(to).await?);
        if from.superuser {
            // Rows that a migration changes fire the triggers, as they would without a move.
            execute(&mut sender, "set session_replication_role = origin").await?;
        }
        Ok(Self { the_move, id, locking, from: sender, to: receiver })
    }

    /// Runs a statement on both sides, in its order.
    ///
    /// # Errors
    /// What a side answers.
    pub async fn step(&mut self, nth: i32, planned: &Planned, statement: &Statement) -> Result<()> {
        match planned.way {
            Way::Session => {
                execute(&mut self.from, statement.sql.clone()).await?;
                execute(&mut self.to, statement.sql.clone()).await?;
            }
            Way::SenderOnly => self.run_on(Place::Sender, nth, planned, statement).await?,
            Way::ReceiverFirst => {
                self.run_on(Place::Receiver, nth, planned, statement).await?;
                self.run_on(Place::Sender, nth, planned, statement).await?;
            }
            Way::SenderFirst => {
                let tables = self.the_move.owner.tables.clone();
                fence::run_each(&mut self.to, &tables, &planned.before, self.locking).await?;
                crash_point("receiver prepared");
                self.run_on(Place::Sender, nth, planned, statement).await?;
                // What was sent before may still break the rule.
                let Move { owner_name, source, target, state, .. } = &mut *self.the_move;
                let (from, to) = state.switch.lives.order(source, target);
                verify::wait_for_marker(&mut from.connection, &mut to.connection, owner_name).await?;
                self.run_on(Place::Receiver, nth, planned, statement).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement once, however often the command is killed: the same transaction notes that it is done.
    async fn run_on(&mut self, place: Place, nth: i32, planned: &Planned, statement: &Statement) -> Result<()> {
        let Move { owner, owner_name, source, target, state, .. } = &mut *self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let (database, session) = match place {
            Place::Sender => (from, &mut self.from),
            Place::Receiver => (to, &mut self.to),
        };
        if list_done(&mut database.connection, owner_name, self.id).await?.contains(&nth) {
            return Ok(());
        }
        let (table, id) = (done_table(owner_name), quote_literal(self.id));
        let note = format!("insert into {table} values ({id}, {nth}) on conflict do nothing");
        let sql = &statement.sql;
        if planned.is_alone {
            // It may wait for every open transaction, and holds up nobody meanwhile.
            execute(session, "set lock_timeout = 0").await?;
            execute(session, sql.clone()).await?;
            execute(&mut database.connection, note).await?;
        } else {
            let once = format!("begin; {sql}\n; set local role none; {note}; commit");
            fence::patiently(session, &owner.tables, self.locking, async |session: &mut PgConnection| {
                execute(session, once.clone()).await
            })
            .await?;
        }
        crash_point("statement run");
        // Until then, the guard takes everybody's changes of definitions for changes of these tables.
        definitions::guard(database, owner_name, &owner.tables).await
    }
}

#[derive(Clone, Copy)]
enum Place {
    Sender,
    Receiver,
}

/// Makes the table that notes which statements have run.
pub async fn prepare(connection: &mut PgConnection, owner_name: &str) -> Result<()> {
    let table = done_table(owner_name);
    let columns = "(migration text, statement integer, primary key (migration, statement))";
    Ok(execute(connection, format!("create table if not exists {table} {columns}")).await?)
}

/// Forgets which statements have run.
pub async fn forget(connection: &mut PgConnection, owner_name: &str) -> Result<()> {
    Ok(execute(connection, format!("drop table if exists {}", done_table(owner_name))).await?)
}

/// The statements of a migration that have run on a side.
pub async fn list_done(connection: &mut PgConnection, owner_name: &str, id: &str) -> Result<Vec<i32>> {
    let table = done_table(owner_name);
    let exists = query_scalar("select to_regclass($1) is not null").bind(&table);
    if !exists.fetch_one(&mut *connection).await? {
        return Ok(Vec::new());
    }
    let rows: Vec<(i32,)> =
        fetch(connection, format!("select statement from {table} where migration = {}", quote_literal(id))).await?;
    Ok(rows.into_iter().map(|(nth,)| nth).collect())
}

fn done_table(owner_name: &str) -> String {
    format!("splitctl.{}", quote_ident(&format!("migrated_{owner_name}")))
}
