//! The tables' definitions, which `pg_dump` brings to the target, with owners and rights, in its own order.

mod checks;
mod depending;
mod groups;
mod made;
pub mod pg_dump;
mod privileges;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use sqlx::{query_as, query_scalar};

use super::crash_point;
use super::inventory::{Id, Inventory, Object};
use super::side::Database;
use crate::database::{execute, sqlstate};
use crate::manifest::Owner;
use checks::calls;
pub use checks::validate;
pub use depending::{Filled, drop_made, dropping, refresh};
use pg_dump::Entry;
pub use privileges::{grant_schemas, undo, undoing};

/// The SQLSTATE of a deadlock.
const DEADLOCK: &str = "40P01";
/// How often a part that meets deadlocks is run.
const ATTEMPTS: usize = 10;

/// The statements that create on the target what the inventory moves.
#[derive(Debug, Default)]
pub struct Definitions {
    /// What the target lacks: schemas, types, functions, tables, views, sequences.
    pub before_rows: String,
    /// The tables' keys and indexes that the target lacks, and what follows from a key. The stream needs them, and rows are
    /// copied faster without. The groups do not depend on each other, so each has a session of its own.
    pub keys: Vec<String>,
    /// Foreign keys among the tables, triggers, policies, rules, statistics, constraints that are not valid, checks that
    /// call functions, and comments on them.
    pub after_rows: String,
}

/// Dumps the definitions of the inventory from the source, the keys for so many sessions.
pub async fn dump(
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
    inventory: &Inventory,
    sessions: u8,
) -> Result<Definitions> {
    let program = pg_dump::find(source.version).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("definitions");
    let lacking: BTreeSet<Id> = inventory.lacking(&mut target.connection).await?.into_iter().map(Object::id).collect();
    let choice = leaving_out(source, inventory).await?;
    pg_dump::dump(&program, &source.url, &archive, &choice).await?;
    let later: Vec<Id> = query_as(LATER).fetch_all(&mut source.connection).await?;
    let finishing = later.into_iter().collect();
    let made = match inventory.moving().filter(|object| object.holds_rows).all(|object| lacking.contains(&object.id())) {
        true => BTreeSet::new(),
        false => find(source, target, inventory, KEYS).await?.0,
    };
    let mut contents = pg_dump::contents(&program, &archive).await?;
    let calling = checks::read(source, owner, inventory).await?;
    // A domain that the target has keeps its checks.
    let (there, _) = inventory.find(&mut target.connection, &of_domains(inventory)).await?;
    contents.retain(|entry| !there.contains(&entry.object) && !calling.iter().any(|check| check.id() == entry.object));
    let (drop_checks, add_checks) = checks::statements(&calling);
    let chosen = Chosen::of(contents, inventory, &lacking, &finishing);
    let (mut before, after): (Vec<&Entry>, Vec<&Entry>) =
        chosen.entries.iter().partition(|entry| !chosen.later.contains(&entry.number));
    before.retain(|entry| chosen.is_lacking(entry));
    let (mut keys, before): (Vec<&Entry>, Vec<&Entry>) = before.into_iter().partition(|entry| entry.is_post_data);
    keys.retain(|entry| !made.contains(&entry.object));
    let (version, owned_by) = (target.version, &owner.owned_by);
    let statements = async |entries: &[&Entry]| pg_dump::statements(&program, &archive, entries, version, owned_by).await;
    let (attached, made): (Vec<&Entry>, Vec<&Entry>) = before.iter().partition(|entry| entry.attaches());
    let (created, attached) = (statements(&made).await?, statements(&attached).await?);
    let left = inventory.dropping_left(&mut source.connection).await?;
    let rights = made::as_in_source(source, owner, objects(inventory, &before)).await?;
    let groups = groups::independent(&keys, sessions.into());
    let mut keys = try_join_all(groups.iter().map(|group| statements(group))).await?;
    for (keys, group) in keys.iter_mut().zip(&groups) {
        // A function whose body needs a key is made with it.
        let rights = made::as_in_source(source, owner, objects(inventory, group)).await?;
        *keys = join(&[keys, &rights]);
    }
    let before_rows = join(&[&created, &drop_checks, &attached, &left, &rights]);
    Ok(Definitions { before_rows, keys, after_rows: join(&[&statements(&after).await?, &add_checks]) })
}

/// The options that leave out the relations that stay: such a table is not locked either.
async fn leaving_out(source: &mut Database, inventory: &Inventory) -> Result<Vec<String>, sqlx::Error> {
    let relations = inventory.moving().filter(|object| object.class == PG_CLASS);
    let relations: Vec<i64> = relations.map(|object| object.oid).collect();
    let stay: Vec<String> = query_scalar(STAYING).bind(relations).fetch_all(&mut source.connection).await?;
    Ok(stay.iter().map(|relation| format!("--exclude-table={relation}")).collect())
}

/// The objects that entries create.
fn objects<'a>(inventory: &'a Inventory, entries: &[&Entry]) -> Vec<&'a Object> {
    let made: BTreeSet<Id> = entries.iter().map(|entry| entry.object).collect();
    inventory.moving().filter(|object| made.contains(&object.id())).collect()
}

/// The constraints of domains. They belong to no table, and the target may have their domain already.
fn of_domains(inventory: &Inventory) -> BTreeSet<Id> {
    inventory.moving().filter(|object| object.kind == "domain constraint").map(Object::id).collect()
}

fn join(statements: &[&str]) -> String {
    statements.iter().filter(|statement| !statement.is_empty()).copied().collect::<Vec<_>>().join("; ")
}

/// The definitions of all that moves, as they are in the source.
pub async fn definitions_of(source: &mut Database, owner: &Owner) -> Result<String> {
    let program = pg_dump::find(source.version).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("definitions");
    let inventory = Inventory::read(&mut source.connection, owner).await?;
    pg_dump::dump(&program, &source.url, &archive, &[]).await?;
    let contents = pg_dump::contents(&program, &archive).await?;
    let chosen = Chosen::of(contents, &inventory, &BTreeSet::new(), &BTreeSet::new());
    let entries: Vec<&Entry> = chosen.entries.iter().collect();
    let statements = pg_dump::statements(&program, &archive, &entries, source.version, &owner.owned_by).await?;
    // The first comments name the versions of the programs.
    Ok(statements.lines().filter(|line| !line.starts_with("-- Dumped ")).collect::<Vec<_>>().join("\n"))
}

/// The kinds and names of what the copy creates on the target besides tables and views.
pub async fn list_lacking(target: &mut Database, inventory: &Inventory) -> Result<Vec<(String, String)>> {
    let mut lacking = inventory.lacking(&mut target.connection).await?;
    lacking.retain(|object| !object.holds_rows);
    Ok(lacking.into_iter().map(|object| (object.kind.clone(), object.identity.clone())).collect())
}

/// The entries of an archive that move.
struct Chosen {
    entries: Vec<Entry>,
    /// The numbers of the entries that come after the rows.
    later: BTreeSet<i64>,
    /// The numbers of the entries whose objects the target has.
    present: BTreeSet<i64>,
}

impl Chosen {
    /// An entry without an object of its own moves if all that it depends on moves. `finishing` come after the rows. All
    /// else comes before the rows, whatever section `pg_dump` puts it into: the stream finds rows by keys and indexes, and a
    /// materialised view that groups by a primary key follows that key. Rights on relations are granted by the switch, and
    /// those on schemas by [`grant_schemas`](privileges::grant_schemas).
    fn of(entries: Vec<Entry>, inventory: &Inventory, lacking: &BTreeSet<Id>, finishing: &BTreeSet<Id>) -> Self {
        let moving: BTreeSet<Id> = inventory.moving().map(|object| object.id()).collect();
        let alone: BTreeSet<Id> = inventory.moving().filter(|object| !object.is_part).map(|object| object.id()).collect();
        let (mut chosen, mut later, mut present) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut granted_later, mut earlier) = (BTreeSet::new(), BTreeSet::new());
        let any = |numbers: &BTreeSet<i64>, entry: &Entry| entry.depends.iter().any(|number| numbers.contains(number));
        let mut kept = Vec::new();
        for entry in entries {
            let (number, object) = (entry.number, entry.object);
            let has_object = object.0 != 0;
            if [PG_CLASS, PG_NAMESPACE].contains(&object.0) {
                granted_later.insert(number);
            }
            let follows = || !entry.depends.is_empty() && entry.depends.iter().all(|number| chosen.contains(number));
            let moves = if has_object { moving.contains(&object) } else { follows() };
            if !moves || entry.is_acl() && any(&granted_later, &entry) {
                continue;
            }
            let is_later = match entry.is_post_data {
                true if has_object => finishing.contains(&object),
                true => !any(&earlier, &entry),
                false => any(&later, &entry),
            };
            if is_later {
                later.insert(number);
            } else if entry.is_post_data {
                earlier.insert(number);
            }
            if if has_object { alone.contains(&object) && !lacking.contains(&object) } else { any(&present, &entry) } {
                present.insert(number);
            }
            chosen.insert(number);
            kept.push(entry);
        }
        Self { entries: kept, later, present }
    }

    fn is_lacking(&self, entry: &Entry) -> bool {
        !self.present.contains(&entry.number)
    }
}

/// Runs one part on the target, in one transaction. The worker that applies the stream locks the same tables in the order of
/// its changes, so Postgres may end this transaction as a deadlock. Then nothing of it was done, and it runs again.
pub async fn apply(target: &Database, statements: &str) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    let mut attempts = 0;
    loop {
        // A dump changes settings of its session and does not reset them.
        let mut connection = target.connect().await?;
        let applied = execute(&mut connection, format!("begin; {statements}; commit")).await;
        attempts += 1;
        let met_the_stream = applied.as_ref().is_err_and(|error| sqlstate(error).as_deref() == Some(DEADLOCK));
        if !met_the_stream || attempts == ATTEMPTS {
            return applied.context("the tables cannot be created on the target");
        }
    }
}

/// Runs parts that do not depend on each other at once. If one fails, the others come to their end before this returns.
pub async fn apply_all(target: &Database, parts: &[String]) -> Result<()> {
    let apply_one = async |part: &String| {
        apply(target, part).await?;
        crash_point("a part of the keys made");
        Ok(())
    };
    join_all(parts.iter().map(apply_one)).await.into_iter().collect()
}

/// Whether the target has what comes after the rows. It is created in one transaction, so one object of a table is enough.
pub async fn is_finished(source: &mut Database, target: &mut Database, inventory: &Inventory) -> Result<bool> {
    Ok(!find(source, target, inventory, LATER).await?.0.is_subset(&of_domains(inventory)))
}

/// Whether the target has all of the tables' keys and indexes.
pub async fn has_keys(source: &mut Database, target: &mut Database, inventory: &Inventory) -> Result<bool> {
    Ok(find(source, target, inventory, KEYS).await?.1.is_empty())
}

/// Which of these objects the target has, and which it lacks.
async fn find(
    source: &mut Database,
    target: &mut Database,
    inventory: &Inventory,
    which: &'static str,
) -> Result<(BTreeSet<Id>, BTreeSet<Id>)> {
    let which: BTreeSet<Id> = query_as::<_, Id>(which).fetch_all(&mut source.connection).await?.into_iter().collect();
    Ok(inventory.find(&mut target.connection, &which).await?)
}

/// The oid of the catalog's table of relations.
const PG_CLASS: i64 = 1259;
/// The oid of the catalog's table of schemas.
const PG_NAMESPACE: i64 = 2615;

const STAYING: &str = r"
    select format('%I.%I', n.nspname, c.relname)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      and c.oid >= 16384
      and c.oid <> all ($1::int8[]::oid[])
      and n.nspname !~ '^pg_'
      and n.nspname not in ('information_schema', 'splitctl')";

/// What `copy` creates after the rows.
const LATER: &str = concat!(
    r"
    select 'pg_constraint'::regclass::oid::int8, o.oid::int8
    from pg_constraint o
    where o.contype = 'f'
       or (o.contype = 'c' and not o.convalidated)
       or (",
    calls!(),
    r")
    union all
    select 'pg_trigger'::regclass::oid::int8, oid::int8
    from pg_trigger
    where not tgisinternal
    union all
    select 'pg_policy'::regclass::oid::int8, oid::int8
    from pg_policy
    union all
    select 'pg_statistic_ext'::regclass::oid::int8, oid::int8
    from pg_statistic_ext
    union all
    select 'pg_rewrite'::regclass::oid::int8, oid::int8
    from pg_rewrite
    where rulename <> '_RETURN'"
);

/// The keys and indexes of tables.
const KEYS: &str = r"
    select 'pg_constraint'::regclass::oid::int8, oid::int8
    from pg_constraint
    where contype in ('p', 'u', 'x')
    union all
    select 'pg_class'::regclass::oid::int8, x.indexrelid::int8
    from pg_index x
    join pg_class c on c.oid = x.indrelid and c.relkind in ('r', 'p')";
