//! Copies the rows: several tables at once, the largest first, large ones in parts, all from the snapshot of the slot with
//! which the stream begins.
//!
//! The same transaction that writes a part notes it on the target. If the copy is killed, its snapshot is gone; the slot is
//! not. What was finished follows that slot, and the server itself copies the tables that are left when it adds them to the
//! stream.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection, query_as};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::Options;
use super::counts::Counts;
use super::snapshot::Snapshot;
use crate::database::{AWAIT_NO_DISK, copy_rows, execute, fetch, fetch_value, server_error};
use crate::exit::Refused;
use crate::moving::objects::escape;
use crate::moving::progress::Progress;
use crate::moving::{Database, Move, applier, crash_point, plan, relations, slot};
use crate::names::{Qualified, quote_ident, quote_literal};
use crate::output::note;

/// How much of a table is one part.
const PART: i64 = 64 << 20;
/// How many small tables share a transaction, at most, and how many bytes.
const TOGETHER: (usize, i64) = (50, 8 << 20);

/// A part of a table, or of a partition.
#[derive(Clone)]
struct Part {
    /// The table that the owner lists.
    listed: Qualified,
    /// Its number, and how many parts the listed table has.
    number: i32,
    of: i32,
    bytes: i64,
    /// The query that reads it.
    read: String,
    /// The table and the columns that it goes to.
    write: String,
}

impl Part {
    /// The row that notes it on the target.
    fn note(&self) -> String {
        format!("({}, {}, {})", quote_literal(&self.listed.sql()), self.number, self.of)
    }
}

/// A table, or a partition, that holds rows.
#[derive(FromRow)]
struct Leaf {
    listed_schema: String,
    listed_name: String,
    #[sqlx(flatten)]
    name: Qualified,
    columns: Vec<String>,
    bytes: i64,
    pages: i64,
}

/// Copies all rows, unless an earlier run has copied some. Returns the tables that are not finished: the stream copies them.
pub async fn copy(the_move: &mut Move, options: Options) -> Result<Vec<Qualified>> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    let name = state.stream();
    let table = notes(owner_name);
    let create = "(listed text, number integer, of_all integer not null, primary key (listed, number))";
    execute(&mut target.connection, format!("create table if not exists {table} {create}")).await?;
    let finished = list_finished(&mut target.connection, owner_name).await?;
    if !finished.is_empty() && matches!(slot::find(&mut source.connection, &name).await?, slot::Slot::Holds(_)) {
        let left: Vec<Qualified> = owner.tables.iter().filter(|table| !finished.contains(*table)).cloned().collect();
        // Foreign keys of tables that were there before forbid a truncate.
        for table in &left {
            let word = if state.begun.made_tables { "truncate" } else { "delete from" };
            execute(&mut target.connection, format!("{word} {}", table.sql())).await?;
        }
        return Ok(left);
    }
    slot::drop_all(&mut source.connection, &[escape(&name)]).await?;
    // To truncate a table costs as much as to create it. One with rows may be referenced by one without, so all go together.
    let is_empty = Leaf::list(&mut target.connection, &owner.tables).await?.iter().all(|leaf| leaf.bytes == 0);
    let truncate = if is_empty { String::new() } else { format!("truncate {};", relations::list(&owner.tables)) };
    execute(&mut target.connection, format!("begin; {truncate} delete from {table}; commit")).await?;
    crash_point("target emptied");
    copy_all(the_move, &name, options).await
}

async fn copy_all(the_move: &mut Move, slot_name: &str, options: Options) -> Result<Vec<Qualified>> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    let role = applier::prepare(target, &state.names, owner).await?;
    // The application's code could take a superuser's session back from the role of few rights. The stream's has none.
    let left_out = if role.is_some() { plan::code::tables_calling(target, &owner.tables).await? } else { Vec::new() };
    for table in &left_out {
        note(format_args!(
            "{table}: its rows call functions that no superuser owns, so the server copies it, at its own rate"
        ));
    }
    // From the snapshot on, nothing may rewrite a table: its rows would be at other places, and an older snapshot sees none.
    let mut holder = source.connect().await?;
    execute(&mut holder, format!("begin; lock table {} in access share mode", relations::list(&owner.tables))).await?;
    let mut parts = list_parts(&mut source.connection, &owner.tables, state.begun.made_tables).await?;
    parts.retain(|part| !left_out.contains(&part.listed));
    let expected = relations::tables(&mut source.connection, &owner.tables).await?;
    let progress = Progress::new("copying", expected.iter().map(|table| table.estimate).sum());
    let snapshot = Snapshot::export(source, slot_name, owner).await?;
    crash_point("slot made");
    let mut workers = JoinSet::new();
    let (left, counts) = (Arc::new(Mutex::new(VecDeque::from(parts))), Arc::new(Counts::new(options.max_rate)));
    for _ in 0..options.jobs.max(1) {
        let worker = Worker::open(source, target, &snapshot, role.as_deref(), &notes(owner_name)).await?;
        workers.spawn(worker.run(Arc::clone(&left), Arc::clone(&counts)));
    }
    // Every worker has the snapshot by now.
    drop(snapshot);
    let mut ticks = tokio::time::interval(super::waiting::LOOK);
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                Some(done) => done.context("a worker of the copy was lost")??,
                None => break,
            },
            _ = ticks.tick() => {}
        }
        counts.report(&progress, owner.tables.len());
    }
    execute(&mut holder, "commit").await?;
    Ok(left_out)
}

/// Two sessions that copy one part after the other.
struct Worker {
    from: PgConnection,
    to: PgConnection,
    role: Option<String>,
    notes: String,
}

impl Worker {
    async fn open(
        source: &Database,
        target: &Database,
        snapshot: &Snapshot,
        role: Option<&str>,
        notes: &str,
    ) -> Result<Self> {
        let (mut from, mut to) = (source.connect().await?, target.connect().await?);
        let begin = "begin isolation level repeatable read read only; set transaction snapshot";
        execute(&mut from, format!("{begin} {}", quote_literal(&snapshot.name))).await?;
        // A part and the note of it are lost together. The stream begins with a commit that waits.
        execute(&mut to, AWAIT_NO_DISK).await?;
        Ok(Self { from, to, role: role.map(quote_ident), notes: notes.to_owned() })
    }

    async fn run(mut self, left: Arc<Mutex<VecDeque<Part>>>, counts: Arc<Counts>) -> Result<()> {
        loop {
            let parts = take(&mut *left.lock().await);
            if parts.is_empty() {
                return Ok(());
            }
            // Checks and generated columns are the application's code: a role of few rights, if any, writes the rows.
            let role = self.role.as_ref().map(|role| format!("; set local role {role}")).unwrap_or_default();
            execute(&mut self.to, format!("begin{role}")).await?;
            for part in &parts {
                self.copy(part, &counts).await.map_err(|error| explain(error, &part.listed))?;
            }
            let notes: Vec<String> = parts.iter().map(Part::note).collect();
            let notes = format!("insert into {} values {}", self.notes, notes.join(", "));
            execute(&mut self.to, format!("reset role; {notes}; commit")).await?;
            parts.iter().for_each(|part| counts.finish(&part.listed, part.of));
            crash_point("parts copied");
        }
    }

    async fn copy(&mut self, part: &Part, counts: &Counts) -> Result<()> {
        let mut before = (0, 0);
        copy_rows(&mut self.from, &part.read, &mut self.to, &part.write, |rows, bytes| {
            let more = (rows - before.0, bytes - before.1);
            before = (rows, bytes);
            counts.add(more.0, more.1)
        })
        .await?;
        Ok(())
    }
}

/// The next part, or several small ones.
fn take(left: &mut VecDeque<Part>) -> Vec<Part> {
    let (most, mut bytes) = (TOGETHER.0, 0);
    let mut taken = Vec::new();
    while let Some(part) = left.pop_front_if(|part| taken.is_empty() || bytes + part.bytes <= TOGETHER.1) {
        bytes += part.bytes;
        taken.push(part);
        if taken.len() == most {
            break;
        }
    }
    taken
}

/// What a server answers is a refusal, and nothing of the part was written.
fn explain(error: anyhow::Error, table: &Qualified) -> anyhow::Error {
    match server_error(&error) {
        Some(server) => Refused(format!(
            "{table}: its rows cannot be copied: {}. Correct that and repeat the command, or run `splitctl abort`",
            server.message()
        ))
        .into(),
        None => error.context(format!("{table}: its rows cannot be copied")),
    }
}

/// The parts of all tables, the largest first. Tables that the copy has created have the source's partitions; others may
/// have other ones, so their root routes the rows.
async fn list_parts(from: &mut PgConnection, tables: &[Qualified], has_partitions: bool) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for of_table in Leaf::list(from, tables).await?.chunk_by(|one, next| one.listed() == next.listed()) {
        let listed = &of_table[0].listed();
        let mut of_table: Vec<Part> =
            of_table.iter().flat_map(|leaf| leaf.parts(listed, if has_partitions { &leaf.name } else { listed })).collect();
        let of = i32::try_from(of_table.len())?;
        for (number, part) in (1..).zip(&mut of_table) {
            (part.number, part.of) = (number, of);
        }
        parts.extend(of_table);
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    Ok(parts)
}

impl Leaf {
    /// Those of all tables, sorted by these.
    async fn list(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Self>, sqlx::Error> {
        let (schemas, names) = Qualified::arrays(tables);
        query_as(LEAVES).bind(schemas).bind(names).fetch_all(connection).await
    }

    /// The table that the owner lists.
    fn listed(&self) -> Qualified {
        Qualified::new(&self.listed_schema, &self.listed_name)
    }

    fn parts(&self, listed: &Qualified, into: &Qualified) -> Vec<Part> {
        let columns = self.columns.join(", ");
        let pages = (PART / (self.bytes / self.pages.max(1)).max(1)).max(1);
        let part = |from: i64, to: Option<i64>| {
            let end = to.map(|to| format!(" and t.ctid < '({to},0)'")).unwrap_or_default();
            let condition =
                if from == 0 && to.is_none() { String::new() } else { format!(" where t.ctid >= '({from},0)'{end}") };
            Part {
                listed: listed.clone(),
                number: 0,
                of: 0,
                bytes: self.bytes.min(PART),
                read: format!("select {columns} from only {} t{condition}", self.name.sql()),
                write: format!("{} ({columns})", into.sql()),
            }
        };
        let begins: Vec<i64> = (0..self.pages.max(1)).step_by(usize::try_from(pages).unwrap_or(usize::MAX)).collect();
        // The last part has no end: the table grows until the snapshot.
        (0..begins.len()).map(|nth| part(begins[nth], begins.get(nth + 1).copied())).collect()
    }
}

/// The tables of which all parts are there.
async fn list_finished(target: &mut PgConnection, owner_name: &str) -> Result<BTreeSet<Qualified>> {
    let rows: Vec<(String,)> =
        fetch(target, format!("select listed from {} group by listed, of_all having count(*) = of_all", notes(owner_name)))
            .await?;
    rows.into_iter().map(|(name,)| name.parse().map_err(anyhow::Error::msg)).collect()
}

/// How many tables a copy has finished so far. Returns `None` if none is on its way.
pub async fn count_finished(target: &mut PgConnection, owner_name: &str) -> Result<Option<usize>> {
    let exists = format!("select to_regclass({}) is not null", quote_literal(&notes(owner_name)));
    match fetch_value(target, exists).await? {
        Some(true) => Ok(Some(list_finished(target, owner_name).await?.len())),
        _ => Ok(None),
    }
}

/// Forgets what was copied.
pub async fn forget(target: &mut PgConnection, owner_name: &str) -> Result<()> {
    Ok(execute(target, format!("drop table if exists {}", notes(owner_name))).await?)
}

fn notes(owner_name: &str) -> String {
    format!("splitctl.{}", quote_ident(&format!("copied_{owner_name}")))
}

const LEAVES: &str = r"
    select
        t.schema as listed_schema,
        t.name as listed_name,
        n.nspname::text as schema,
        c.relname::text as name,
        array(
            select quote_ident(a.attname)
            from pg_attribute a
            where a.attrelid = c.oid
              and a.attnum > 0
              and not a.attisdropped
              and a.attgenerated = ''
            order by a.attnum
        ) as columns,
        pg_relation_size(c.oid) as bytes,
        pg_relation_size(c.oid) / current_setting('block_size')::int8 as pages
    from (
        select l.schema, l.name, leaf.relid
        from unnest($1::text[], $2::text[]) l (schema, name)
        join pg_namespace n on n.nspname = l.schema
        join pg_class r on r.relnamespace = n.oid and r.relname = l.name
        cross join lateral (
            select r.oid as relid
            union
            select p.relid::oid from pg_partition_tree(r.oid) p
        ) leaf
    ) t
    join pg_class c on c.oid = t.relid and c.relkind = 'r'
    join pg_namespace n on n.oid = c.relnamespace
    order by 1, 2, 3, 4";
