//! Crossings join the moving tables to those that stay, and must be replaced before the cutover. splitctl can drop most of
//! them, and create them again as they were.

pub(super) mod crossing;
mod parts;
mod standing;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use sqlx::postgres::PgDatabaseError;
use sqlx::{PgConnection, query_scalar};

use super::fence::{self, Locking};
use super::inventory::{Function, Inventory, PartKind};
use super::journal::{Journal, State, Step};
use super::side::{Database, Side};
use super::{Move, crash_point};
use crate::database::{self, execute, server_error};
use crate::exit::{Refused, require};
use crate::names::quote_ident;
pub use crossing::{Crossing, Kind};
pub use standing::has_replacement;

/// How often `detach` looks again: a function crosses on its own once no trigger calls it.
const ROUNDS: u32 = 5;

/// What to do with a view that moves and reads what stays.
pub const VIEW_THAT_MOVES: &str = "take it out of the owner's `views`: then it stays, and `detach` drops it";

/// A crossing that stands, for people.
pub struct Standing {
    /// The object, what it uses, and what to do.
    pub text: String,
    /// Who takes it off.
    pub way: Way,
}

/// Who takes a crossing off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// `splitctl` with this command.
    Command(String),
    /// It belongs to what moves, so the plan says what becomes of it.
    Plan,
    /// A person.
    Person,
}

/// Describes the crossings that stand, and what replaces each.
pub async fn describe(the_move: &mut Move) -> Result<Vec<Standing>> {
    let inventory = the_move.read_inventory().await?;
    describe_of(the_move, &inventory).await
}

/// Does the same for an inventory of the source that was just read.
pub async fn describe_of(the_move: &mut Move, inventory: &Inventory) -> Result<Vec<Standing>> {
    let Move { manifest, owner_name, owner, source, .. } = the_move;
    let connection = &mut source.connection;
    let mut crossings = Vec::new();
    let detaching = format!("detach {owner_name}");
    for key in standing::foreign_keys(connection, &owner.tables).await? {
        let text = format!("{key} crosses to the other database: `splitctl {detaching}`");
        crossings.push(Standing { text, way: Way::Command(detaching.clone()) });
    }
    let take_off = |object: &str| match has_replacement(manifest, object) {
        true => (format!("replace {object}"), format!("run `splitctl replace {object}`")),
        false => (detaching.clone(), format!("replace it, or let `splitctl {detaching}` drop it")),
    };
    for part in inventory.crossing_parts() {
        let (object, side) = (part.object(), if part.moves { "stays" } else { "moves" });
        let by_hand = if part.moves { Way::Plan } else { Way::Person };
        let (way, advice) = match part.kind {
            _ if part.can_be_detached() || has_replacement(manifest, &object) => {
                let (command, advice) = take_off(&object);
                (Way::Command(command), advice)
            }
            PartKind::View => (by_hand, VIEW_THAT_MOVES.to_owned()),
            _ => (by_hand, "change it, so that it uses tables of one side only".to_owned()),
        };
        let text = format!("{}: it uses {}, which {side}: {advice}", part.shown, part.uses);
        crossings.push(Standing { text, way });
    }
    for Function { shown, uses: (moving, staying), .. } in inventory.crossing_functions() {
        let (command, advice) = take_off(shown);
        let text = format!("function {shown}: it uses {moving}, which moves, and {staying}, which stays: {advice}");
        crossings.push(Standing { text, way: Way::Command(command) });
    }
    for (trigger, uses) in standing::event_triggers(connection, inventory).await? {
        let text = format!(
            "event trigger {trigger}: its function uses {uses}, which moves: drop the event trigger, or change its function"
        );
        crossings.push(Standing { text, way: Way::Person });
    }
    for object in standing::depending(connection, manifest, inventory).await? {
        let text = format!(
            "{}: it uses {}, which `splitctl {detaching}` drops: drop it, or change it",
            object.shown, object.needed
        );
        crossings.push(Standing { text, way: Way::Person });
    }
    Ok(crossings)
}

/// Describes them as lines.
pub async fn list(the_move: &mut Move) -> Result<Vec<String>> {
    Ok(describe(the_move).await?.into_iter().map(|crossing| crossing.text).collect())
}

/// Drops what crosses. The journal keeps the definitions.
///
/// # Errors
/// [`Refused`] if no move is open, a table cannot be locked, or another object depends on one that crosses.
pub async fn detach(the_move: &mut Move, locking: Locking) -> Result<Vec<Crossing>> {
    the_move.check_open()?;
    let Move { owner_name, state, .. } = &*the_move;
    require!(state.switch.lives == Side::Source, "{owner_name}: the tables live in the target, so nothing crosses");
    state.check_not_ending(owner_name)?;
    let mut dropped = Vec::new();
    // An earlier run may have dropped some and then been killed.
    let mut known = state.detached.clone();
    for _ in 0..ROUNDS {
        let found = standing::list(the_move).await?;
        if found.is_empty() && !dropped.is_empty() {
            break;
        }
        // What stands is dropped now, so it comes back before what was dropped earlier.
        known.retain(|known| !found.iter().any(|found| found.is(known)));
        known.extend(found.iter().cloned());
        the_move.journal.intend(Step::Detach, &known).await?;
        crash_point("detach intended");
        for crossing in &found {
            drop_one(the_move, crossing, locking).await?;
        }
        dropped.extend(found);
        if dropped.is_empty() {
            break;
        }
    }
    the_move.journal.record(Step::Detach, &known).await?;
    Ok(dropped)
}

/// Creates again what `detach` dropped.
///
/// # Errors
/// [`Refused`] with every object that could not be created, and the statements that create it.
pub async fn attach(the_move: &mut Move, locking: Locking) -> Result<Vec<Crossing>> {
    the_move.check_open()?;
    let Move { owner_name, source, journal, state, .. } = the_move;
    require!(
        state.switch.lives == Side::Source,
        "{owner_name}: the tables live in the target: `splitctl rollback {owner_name}` first"
    );
    attach_all(source, journal, state, locking).await
}

/// Does the same, with the source alone.
///
/// # Errors
/// As [`attach`].
pub async fn attach_all(
    source: &mut Database,
    journal: &mut Journal,
    state: &State,
    locking: Locking,
) -> Result<Vec<Crossing>> {
    if state.detached.is_empty() {
        return Ok(Vec::new());
    }
    journal.intend(Step::Attach, &state.detached).await?;
    let mut lost = Vec::new();
    // An object is dropped before those that it needs, so it comes back after them.
    for crossing in state.detached.iter().rev() {
        if let Err(error) = crossing.restore(source, locking).await {
            lost.push(explain(&error, crossing));
        }
        crash_point("crossing attached");
    }
    if !lost.is_empty() {
        let found = if lost.len() == 1 { "1 object is".to_owned() } else { format!("{} objects are", lost.len()) };
        return Err(Refused(format!("{found} not back as before:\n  {}", lost.join("\n  "))).into());
    }
    journal.record(Step::Attach, json!({})).await?;
    Ok(state.detached.clone())
}

/// Readers wait behind the lock that a drop asks for: at most `lock_timeout`, although the drop of a key locks two tables.
async fn drop_one(the_move: &mut Move, crossing: &Crossing, locking: Locking) -> Result<()> {
    let Move { owner, source, target, .. } = the_move;
    let (begin, drop) = (begin_in_time(locking.lock_timeout), format!("{}; commit", crossing.dropping()));
    let tables = std::slice::from_ref(&crossing.table);
    // The copy brought the trigger to the target, where it would miss the tables that stay. A repeated `detach` looks for it
    // in the source, so there it goes last.
    if crossing.kind == Kind::Trigger && owner.tables.contains(&crossing.table) {
        let (name, table) = (quote_ident(&crossing.name), crossing.table.sql());
        let drop = [format!("drop trigger if exists {name} on {table}")];
        fence::run_each(&mut target.connection, tables, &drop, locking).await?;
        crash_point("trigger dropped on the target");
    }
    // Whoever was in the way may be gone when the last attempt has failed.
    let mut users = Vec::new();
    let dropped = fence::patiently(&mut source.connection, tables, locking, async |connection: &mut PgConnection| {
        execute(connection, begin.clone()).await?;
        let dropped = execute(connection, drop.clone()).await;
        if dropped.is_err() {
            execute(connection, "rollback").await?;
            let now: Vec<String> = query_scalar(USERS).bind(crossing.table.sql()).fetch_all(connection).await?;
            users = if now.is_empty() { std::mem::take(&mut users) } else { now };
        }
        dropped
    });
    if let Err(error) = dropped.await {
        return Err(not_dropped(error, crossing, &users)?.into());
    }
    crash_point("crossing dropped");
    Ok(())
}

fn begin_in_time(limit: Duration) -> String {
    format!("begin; set local statement_timeout = {}", limit.as_millis())
}

/// Names the object that was not dropped, and those in the way.
fn not_dropped(error: anyhow::Error, crossing: &Crossing, users: &[String]) -> Result<Refused> {
    let next = "repeat `splitctl detach`; or run `splitctl attach`, which puts back what was dropped";
    if error.is::<Refused>() {
        let users = if users.is_empty() { "none was found".to_owned() } else { users.join("; ") };
        return Ok(Refused(format!(
            "{crossing} could not be locked. Sessions that used its tables when an attempt failed: {users}. {next}"
        )));
    }
    match server_error(&error).and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(found) if found.code() == "2BP01" => {
            let dependents = found.detail().unwrap_or_default().replace('\n', "; ");
            Ok(Refused(format!(
                "{crossing} cannot be dropped, because these depend on it: {dependents}. Drop them, and {next}"
            )))
        }
        _ => Err(error),
    }
}

/// Names the object, the reason, and what a person can run.
fn explain(error: &anyhow::Error, crossing: &Crossing) -> String {
    let server = server_error(error);
    let reason = server.map_or_else(|| database::describe(error), |error| error.message().to_owned());
    if server.is_some_and(|error| matches!(error.code().as_deref(), Some("23503" | "23514"))) {
        let (table, name) = (crossing.table.sql(), quote_ident(&crossing.name));
        return format!(
            "{crossing} is not valid again ({reason}): correct the rows and repeat `splitctl attach`; after an abort, run \
             `alter table {table} validate constraint {name}`"
        );
    }
    format!(
        "{crossing} is not there again ({reason}): correct that and repeat `splitctl attach`; after an abort, run:\n{}",
        crossing.creating()
    )
}

/// Sessions that hold a lock on a table, or on one that its foreign keys refer to: a reader is enough to keep a drop
/// waiting.
const USERS: &str = r"
    with held as (
        select l.pid, l.virtualtransaction, l.mode, l.relation
        from pg_locks l
        where l.granted
          and l.locktype = 'relation'
          and l.database = (select oid from pg_database where datname = current_database())
          and l.pid is distinct from pg_backend_pid()
          and (
              l.relation = to_regclass($1)
              or exists (
                  select
                  from pg_constraint c
                  where c.contype = 'f'
                    and c.conrelid = to_regclass($1)
                    and c.confrelid = l.relation
              )
          )
    )
    select format(
        'process %s (%s, role %s), %s for %s, holds %s on %s',
        a.pid,
        coalesce(nullif(a.application_name, ''), a.backend_type),
        coalesce(a.usename, '-'),
        coalesce(a.state, 'active'),
        (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0),
        l.mode,
        l.relation::regclass
    )
    from held l
    join pg_stat_activity a on a.pid = l.pid
    union
    select format('the prepared transaction %L of %s, holds %s on %s', p.gid, p.owner, l.mode, l.relation::regclass)
    from held l
    join pg_locks x on x.locktype = 'transactionid' and x.virtualtransaction = l.virtualtransaction and x.pid is null
    join pg_prepared_xacts p on p.transaction = x.transactionid
    where l.pid is null
    order by 1";
