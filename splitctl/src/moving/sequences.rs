//! Sequences do not replicate, so a switch sets them on the other side, with headroom.

use std::collections::HashSet;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as};

use super::inventory::Inventory;
use super::relations;
use crate::database::{execute, fetch};
use crate::manifest::Owner;
use crate::names::{Qualified, quote_literal};

/// Steps that each switch leaves out: sessions may have drawn numbers ahead that they have not used yet.
const HEADROOM: i64 = 1000;

/// The sequences that move with an owner's tables: those of their columns, and those that only the bodies of functions name.
pub async fn list(connection: &mut PgConnection, owner: &Owner) -> Result<Vec<Qualified>> {
    let inventory = Inventory::read(connection, owner).await?;
    list_of(connection, owner, &inventory).await
}

/// Does the same for an inventory of this side that was just read.
pub async fn list_of(connection: &mut PgConnection, owner: &Owner, inventory: &Inventory) -> Result<Vec<Qualified>> {
    let mut sequences = inventory.sequences(connection).await?;
    sequences.extend(list_recorded(connection, &owner.relations()).await?);
    sequences.sort();
    sequences.dedup();
    Ok(sequences)
}

/// The sequences that the tables' columns use, whether they belong to a column or stand alone.
pub async fn list_recorded(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>, sqlx::Error> {
    relations::select(connection, SEQUENCES, tables).await
}

/// Builds the statement that reads all of them: one round trip, because writers wait for it. What does not change meanwhile
/// is read now. `None` if there are none.
pub async fn reading(connection: &mut PgConnection, sequences: &[Qualified]) -> Result<Option<String>, sqlx::Error> {
    let (schemas, names) = Qualified::arrays(sequences);
    let known: Vec<Known> = query_as(KNOWN).bind(schemas).bind(names).fetch_all(connection).await?;
    let (called, uncalled): (Vec<&Known>, Vec<&Known>) = known.iter().partition(|known| known.is_called);
    let mut parts: Vec<String> = uncalled.into_iter().map(|known| known.single.clone()).collect();
    if !called.is_empty() {
        // A query of each would take longer. If somebody has reset one, its row is null, and the read fails.
        let called: Vec<&str> = called.iter().map(|known| known.row.as_str()).collect();
        parts.push(format!("{OF_CALLED} (values {}) {COLUMNS}", called.join(", ")));
    }
    Ok((!parts.is_empty()).then(|| parts.join(" union all ")))
}

/// Sets the sequences on the other side while numbers are still drawn on this one. Returns what they were here: those that
/// do not change until the switch are set.
pub async fn set_ahead(
    from: &mut PgConnection,
    to: &mut PgConnection,
    reading: Option<&str>,
) -> Result<Vec<Sequence>, sqlx::Error> {
    let sequences = read_by(from, reading).await?;
    if let Some(setting) = setting(&sequences) {
        execute(to, setting).await?;
    }
    Ok(sequences)
}

/// Reads the sequences again, and builds the statement that sets those on the other side that are not as they were.
pub async fn setting_changed(
    from: &mut PgConnection,
    reading: Option<&str>,
    before: &[Sequence],
) -> Result<Option<String>, sqlx::Error> {
    let before: HashSet<&Sequence> = before.iter().collect();
    let mut sequences = read_by(from, reading).await?;
    sequences.retain(|sequence| !before.contains(sequence));
    Ok(setting(&sequences))
}

async fn read_by(connection: &mut PgConnection, reading: Option<&str>) -> Result<Vec<Sequence>, sqlx::Error> {
    match reading {
        Some(reading) => fetch::<Sequence>(connection, reading.to_owned()).await,
        None => Ok(Vec::new()),
    }
}

/// The statement that sets sequences, with headroom. A list of rows may be of any length.
fn setting(sequences: &[Sequence]) -> Option<String> {
    let rows: Vec<String> = sequences.iter().map(Sequence::row).collect();
    let rows = (!rows.is_empty()).then(|| rows.join(", "))?;
    Some(format!(
        "select count(setval(name::regclass, value::int8, is_called)) from (values {rows}) s (name, value, is_called)"
    ))
}

/// Builds the statements that set sequences back to what they are now.
pub async fn restoring(connection: &mut PgConnection, sequences: &[Qualified]) -> Result<Vec<String>, sqlx::Error> {
    let reading = reading(connection, sequences).await?;
    Ok(read_by(connection, reading.as_deref()).await?.iter().map(Sequence::putting_back).collect())
}

/// Builds the statements that set the tables' own sequences behind the highest values of their columns. Only for tables
/// whose other side is gone: its sequences can no longer be read.
pub async fn behind_rows(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>, sqlx::Error> {
    relations::select_lines(connection, BEHIND_ROWS, tables).await
}

/// Reads the sequences that the tables use.
pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Vec<Sequence>> {
    let sequences = list(connection, owner).await?;
    let reading = reading(connection, &sequences).await?;
    Ok(read_by(connection, reading.as_deref()).await?)
}

/// A sequence, and where it is.
#[derive(Debug, PartialEq, Eq, Hash, FromRow)]
pub struct Sequence {
    name: String,
    last_value: i64,
    is_called: bool,
    increment_by: i64,
    min_value: i64,
    max_value: i64,
}

impl Sequence {
    /// The statement that sets it to where it was.
    pub fn putting_back(&self) -> String {
        format!("select setval({}, '{}', {})", quote_literal(&self.name), self.last_value, self.is_called)
    }

    /// Its name, and what it is set to on the other side.
    fn row(&self) -> String {
        let ahead = self.last_value.saturating_add(self.increment_by.saturating_mul(HEADROOM));
        // Near its end a sequence gets no headroom.
        let has_room = (self.min_value..=self.max_value).contains(&ahead);
        let (value, is_called) = if has_room { (ahead, true) } else { (self.last_value, self.is_called) };
        format!("({}, {value}, {is_called})", quote_literal(&self.name))
    }
}

/// What is known of a sequence before writers wait.
#[derive(FromRow)]
struct Known {
    is_called: bool,
    /// The query that reads it alone, whatever it has become.
    single: String,
    /// Its row in the query for all that have been called.
    row: String,
}

const KNOWN: &str = r"
    select
        pg_sequence_last_value(s.seqrelid) is not null as is_called,
        format(
            'select %L::text as name, last_value, is_called, %L::int8 as increment_by, %L::int8 as min_value,
                 %L::int8 as max_value
             from %I.%I',
            r.name, s.seqincrement, s.seqmin, s.seqmax, n.nspname, c.relname
        ) as single,
        format('(%L::text, %s::oid, %L::int8, %L::int8, %L::int8)', r.name, c.oid, s.seqincrement, s.seqmin, s.seqmax) as row
    from unnest($1::text[], $2::text[]) listed (schema, name)
    join pg_namespace n on n.nspname = listed.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = listed.name
    join pg_sequence s on s.seqrelid = c.oid
    cross join lateral format('%I.%I', n.nspname, c.relname) r (name)
    order by c.oid";

const OF_CALLED: &str = r"
    select name, pg_sequence_last_value(oid) as last_value, true as is_called, increment_by, min_value, max_value
    from";

const COLUMNS: &str = "called (name, oid, increment_by, min_value, max_value)";

const BEHIND_ROWS: &str = r"
    select format(
        'select setval(%L, greatest(q.last_value, r.value) + %s)
         from %s q, (select coalesce(max(%I), 0) as value from %s) r',
        s.oid::regclass,
        1000 * p.seqincrement,
        s.oid::regclass,
        a.attname,
        c.oid::regclass
    )
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    join pg_sequence p on p.seqrelid = s.oid and p.seqincrement > 0
    join pg_class c on c.oid = d.refobjid
    join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
    where d.classid = 'pg_class'::regclass
      and d.refclassid = 'pg_class'::regclass
      and d.refobjid = any ($1)
      and d.deptype in ('a', 'i')
    order by 1";

const SEQUENCES: &str = r"
    select distinct n.nspname::text as schema, s.relname::text as name
    from (
        select d.objid as sequence
        from pg_depend d
        where d.refclassid = 'pg_class'::regclass
          and d.refobjid = any ($1)
          and d.classid = 'pg_class'::regclass
          and d.deptype in ('a', 'i')
        union
        select d.refobjid
        from pg_attrdef f
        join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
        where f.adrelid = any ($1)
    ) used
    join pg_class s on s.oid = used.sequence and s.relkind = 'S'
    join pg_namespace n on n.oid = s.relnamespace
    order by 1, 2";
