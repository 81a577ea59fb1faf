//! Sequences do not replicate, so a switch sets them on the other side, with headroom.

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::inventory::Inventory;
use super::relations;
use crate::database::fetch;
use crate::manifest::Owner;
use crate::names::{Qualified, quote_literal};

/// Steps that each switch leaves out: sessions may have drawn numbers ahead that they have not used yet.
const HEADROOM: i64 = 1000;

/// The sequences that the tables use: those of their columns, and those that only the bodies of functions name.
pub async fn list(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>, sqlx::Error> {
    let of_the_tables = Owner { tables: tables.to_vec(), ..Owner::default() };
    let mut sequences = Inventory::read(connection, &of_the_tables).await?.sequences(connection).await?;
    sequences.extend(list_recorded(connection, tables).await?);
    sequences.sort();
    sequences.dedup();
    Ok(sequences)
}

/// The sequences that the tables' columns use, whether they belong to a column or stand alone.
pub async fn list_recorded(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>, sqlx::Error> {
    relations::select(connection, SEQUENCES, tables).await
}

/// Builds the statement that reads all of them: one round trip, because writers wait for it. `None` if there are none.
pub fn reading(sequences: &[Qualified]) -> Option<String> {
    let parts = sequences.iter().map(|sequence| {
        format!(
            "select {}::text as name, q.last_value, q.is_called, s.increment_by, s.min_value, s.max_value
             from {} q, pg_sequences s
             where s.schemaname = {} and s.sequencename = {}",
            quote_literal(&sequence.sql()),
            sequence.sql(),
            quote_literal(&sequence.schema),
            quote_literal(&sequence.name)
        )
    });
    let parts: Vec<_> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(" union all "))
}

/// Reads the sequences, and builds the statement that sets them on the other side.
pub async fn setting(connection: &mut PgConnection, reading: Option<&str>) -> Result<Option<String>, sqlx::Error> {
    let Some(reading) = reading else { return Ok(None) };
    let sequences = fetch::<Sequence>(connection, reading.to_owned()).await?;
    let sets: Vec<String> = sequences.iter().map(Sequence::setting).collect();
    Ok((!sets.is_empty()).then(|| format!("select {}", sets.join(", "))))
}

#[derive(FromRow)]
struct Sequence {
    name: String,
    last_value: i64,
    is_called: bool,
    increment_by: i64,
    min_value: i64,
    max_value: i64,
}

impl Sequence {
    fn setting(&self) -> String {
        let ahead = self.last_value.saturating_add(self.increment_by.saturating_mul(HEADROOM));
        // Near its end a sequence gets no headroom.
        let has_room = (self.min_value..=self.max_value).contains(&ahead);
        let (value, is_called) = if has_room { (ahead, true) } else { (self.last_value, self.is_called) };
        format!("setval({}, {value}, {is_called})", quote_literal(&self.name))
    }
}

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
