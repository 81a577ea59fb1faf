//! Sequences do not replicate: they are set on the other side, with headroom.

use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::relations::oids;
use crate::names::{Qualified, quote_literal};

/// Steps that are left out at each switch: numbers that were drawn and not used yet, by sessions that drew them ahead.
const HEADROOM: i64 = 1000;

/// The sequences that the tables' columns use, theirs or not.
pub async fn of(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>> {
    let statement = format!(
        "with moving as ({})
         select distinct n.nspname::text, s.relname::text
         from (
             select d.objid as sequence
             from moving m
             join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = m.relid
                 and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
             union
             select d.refobjid
             from moving m
             join pg_attrdef f on f.adrelid = m.relid
             join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
         ) used
         join pg_class s on s.oid = used.sequence and s.relkind = 'S'
         join pg_namespace n on n.oid = s.relnamespace
         order by 1, 2",
        oids(tables)
    );
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok(Qualified::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?))).collect()
}

/// A statement that tells where all of them stand: in one round trip, since writers wait meanwhile.
pub fn reading(sequences: &[Qualified]) -> Option<String> {
    let parts = sequences.iter().map(|sequence| {
        format!(
            "select {}::text as name, q.last_value, q.is_called, s.increment_by, s.min_value, s.max_value
             from {} q, pg_sequences s where s.schemaname = {} and s.sequencename = {}",
            quote_literal(&sequence.sql()),
            sequence.sql(),
            quote_literal(&sequence.schema),
            quote_literal(&sequence.name)
        )
    });
    let parts: Vec<_> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(" union all "))
}

/// Reads them, and returns the statement that sets them elsewhere.
pub async fn setting(connection: &mut PgConnection, reading: Option<&str>) -> Result<Option<String>> {
    let Some(reading) = reading else { return Ok(None) };
    let mut sets = Vec::new();
    for row in sqlx::query(AssertSqlSafe(reading.to_owned())).fetch_all(connection).await? {
        let name: String = row.try_get(0)?;
        let (last, called, step): (i64, bool, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (least, most): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
        let ahead = last.saturating_add(step.saturating_mul(HEADROOM));
        // A sequence near its end keeps what is left.
        let (value, called) = if (least..=most).contains(&ahead) { (ahead, true) } else { (last, called) };
        sets.push(format!("setval({}, {value}, {called})", quote_literal(&name)));
    }
    Ok((!sets.is_empty()).then(|| format!("select {}", sets.join(", "))))
}
