//! The tables whose rows a stand-in gets.

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use crate::names::Qualified;

/// A table of the source, with the columns that a copy can write.
#[derive(Debug, Clone, FromRow)]
pub struct Table {
    /// Its name.
    #[sqlx(flatten)]
    pub name: Qualified,
    /// Its columns, quoted, without the generated ones.
    pub columns: Vec<String>,
    /// Whether rows of its children are its own: it has partitions.
    pub is_partitioned: bool,
    /// Whether splitctl's role may read it.
    pub is_readable: bool,
    /// The number of rows, as the statistics estimate it. Negative if there are no statistics.
    pub estimate: i64,
    /// The size without indexes, in bytes.
    pub bytes: i64,
}

impl Table {
    /// What a query reads its rows from.
    pub fn from(&self) -> String {
        self.name.rows(self.is_partitioned)
    }

    /// The table and the columns that a copy writes.
    pub fn destination(&self) -> String {
        format!("{} ({})", self.name.sql(), self.columns.join(", "))
    }
}

/// What the stand-in has got.
#[derive(Debug, Default)]
pub struct Filled {
    /// The number of rows of each table.
    pub rows: Vec<(Qualified, u64)>,
    /// The bytes of all rows, as text.
    pub bytes: u64,
    /// Tables whose rows could not be copied, and why.
    pub missing: Vec<String>,
}

/// The tables whose rows the stand-in gets: those of the source that it has, too. Tables of extensions are left out.
pub async fn list(source: &mut PgConnection, standin: &mut PgConnection) -> Result<(Vec<Table>, Vec<String>)> {
    let (mut tables, mut left_out) = (Vec::new(), Vec::new());
    for table in query_as::<_, Table>(TABLES).fetch_all(source).await? {
        let is_there = query_scalar("select to_regclass($1) is not null").bind(table.name.sql());
        if !table.is_readable {
            left_out.push(format!("{}: splitctl's role may not read its rows, so the rehearsal has none", table.name));
        } else if is_there.fetch_one(&mut *standin).await? {
            tables.push(table);
        } else {
            left_out.push(format!("{}: the rehearsal has no such table, see above", table.name));
        }
    }
    Ok((tables, left_out))
}

const TABLES: &str = r"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        c.relkind = 'p' as is_partitioned,
        has_table_privilege(c.oid, 'select') as is_readable,
        k.columns,
        s.estimate,
        s.bytes
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (
        select array_agg(quote_ident(a.attname) order by a.attnum) as columns
        from pg_attribute a
        where a.attrelid = c.oid
          and a.attnum > 0
          and not a.attisdropped
          and a.attgenerated = ''
    ) k
    cross join lateral (
        select
            sum(p.reltuples)::int8 as estimate,
            sum(pg_table_size(p.oid))::int8 as bytes
        from pg_class p
        where p.oid in (select t.relid from pg_partition_tree(c.oid) t where t.isleaf union select c.oid)
          and p.relkind = 'r'
    ) leaf
    cross join lateral (select coalesce(leaf.estimate, 0) as estimate, coalesce(leaf.bytes, 0) as bytes) s
    where c.relkind in ('r', 'p')
      and c.relpersistence <> 't'
      and not c.relispartition
      and k.columns is not null
      and n.nspname <> all (array['pg_catalog', 'information_schema', 'splitctl'])
      and not starts_with(n.nspname::text, 'pg_t')
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_class'::regclass
            and d.objid = c.oid
            and d.deptype = 'e'
      )
    order by 1, 2";
