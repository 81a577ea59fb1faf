//! Foreign keys among the tables, which the stream does not check.

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use crate::database::fetch_value;
use crate::moving::relations;
use crate::names::Qualified;

#[derive(FromRow)]
struct Key {
    name: String,
    table: String,
    columns: Vec<String>,
    referred: String,
    /// Each begins with the column of the referred table, and ends with the operator of the key.
    comparisons: Vec<String>,
    /// The collations of the referred columns.
    collations: Vec<String>,
}

impl Key {
    /// The statement that finds a row which breaks the key.
    fn broken(&self) -> String {
        let Self { table, columns, referred, comparisons, collations, .. } = self;
        let present: Vec<String> = columns.iter().map(|column| format!("t.{column} is not null")).collect();
        let pairs = comparisons.iter().zip(columns).zip(collations);
        let join: Vec<String> =
            pairs.map(|((comparison, column), collation)| format!("{comparison} t.{column}{collation}")).collect();
        let (present, join) = (present.join(" and "), join.join(" and "));
        format!("select true from {table} t where {present} and not exists (select from {referred} r where {join}) limit 1")
    }
}

/// The stream does not check foreign keys, so rows may break them.
pub async fn list_broken(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for key in relations::select::<Key>(connection, KEYS, tables).await? {
        if fetch_value::<bool>(connection, key.broken()).await?.is_some() {
            broken.push(format!("{} on {}", key.name, key.table));
        }
    }
    Ok(broken)
}

const KEYS: &str = r"
    select
        c.conname::text as name,
        c.conrelid::regclass::text as table,
        array(
            select quote_ident(a.attname)
            from unnest(c.conkey) with ordinality k (attnum, nth)
            join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum
            order by k.nth
        ) as columns,
        c.confrelid::regclass::text as referred,
        array(
            select format('r.%I operator(%I.%s)', a.attname, n.nspname, o.oprname)
            from unnest(c.confkey, c.conpfeqop) with ordinality k (attnum, operator, nth)
            join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum
            join pg_operator o on o.oid = k.operator
            join pg_namespace n on n.oid = o.oprnamespace
            order by k.nth
        ) as comparisons,
        array(
            select case when l.oid is null then '' else format(' collate %I.%I', n.nspname, l.collname) end
            from unnest(c.confkey) with ordinality k (attnum, nth)
            join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum
            left join pg_collation l on l.oid = a.attcollation
            left join pg_namespace n on n.oid = l.collnamespace
            order by k.nth
        ) as collations
    from pg_constraint c
    where c.contype = 'f'
      and c.convalidated
      and c.conparentid = 0
      and c.conrelid = any ($1)
      and c.confrelid = any ($1)
      -- A key over periods, which Postgres 18 has, is not a comparison of values.
      and not coalesce((to_jsonb(c) ->> 'conperiod')::bool, false)
    order by 1";
