//! A sample of rows in which each foreign key finds its row: the rows that the keys need come along, whatever their table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query_as, query_scalar};

use super::tables::{Filled, Table};
use crate::database::copy_rows;
use crate::names::{Qualified, quote_literal};

/// The number of rows of each table to begin with.
pub const ROWS: i64 = 1000;
/// How many keys one query looks for.
const KEYS: usize = 2000;

/// The query for the first rows of a table. A large table gives rows from all over it.
pub fn query(table: &Table) -> String {
    let pages = if table.estimate > 2 * ROWS {
        // Twice as many as needed: the number of rows of a page differs.
        let percent = (200.0 * ROWS as f64 / table.estimate as f64).clamp(0.001, 100.0);
        format!(" tablesample system ({percent:.3})")
    } else {
        String::new()
    };
    format!("select {} from {}{pages} limit {ROWS}", table.columns.join(", "), table.from())
}

/// Copies the rows that foreign keys need, until no key needs another. Each round takes the parents of the last one along,
/// so chains and circles of keys end.
pub async fn close(
    source: &mut PgConnection,
    standin: &mut PgConnection,
    tables: &[Table],
    filled: &mut Filled,
) -> Result<()> {
    let keys: Vec<ForeignKey> = query_as(FOREIGN_KEYS).fetch_all(&mut *source).await?;
    let known: BTreeMap<String, &Table> = tables.iter().map(|table| (table.name.sql(), table)).collect();
    // The parents of a broken key do not exist.
    let mut asked: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    loop {
        let mut brought = 0;
        for key in &keys {
            let Some(parent) = known.get(&key.parent.sql()) else { continue };
            let is_there = query_scalar("select to_regclass($1) is not null").bind(key.child.sql());
            if !is_there.fetch_one(&mut *standin).await? {
                continue;
            }
            let missing: Vec<Vec<String>> = query_scalar(AssertSqlSafe(key.missing())).fetch_all(&mut *standin).await?;
            let new: Vec<Vec<String>> =
                missing.into_iter().filter(|value| asked.insert((key.id.clone(), value.clone()))).collect();
            for values in new.chunks(KEYS) {
                let (rows, bytes) =
                    copy_rows(source, &key.parents(parent, values), standin, &parent.destination(), |_, _| Duration::ZERO)
                        .await?;
                brought += rows;
                filled.bytes += bytes;
                count(filled, &parent.name, rows);
            }
        }
        if brought == 0 {
            return Ok(());
        }
    }
}

fn count(filled: &mut Filled, table: &Qualified, rows: u64) {
    if let Some((_, count)) = filled.rows.iter_mut().find(|(name, _)| name == table) {
        *count += rows;
    }
}

/// A foreign key. A partition's parent is its root.
#[derive(FromRow)]
struct ForeignKey {
    id: String,
    #[sqlx(json)]
    child: Name,
    #[sqlx(json)]
    parent: Name,
    /// The columns of the child, quoted.
    columns: Vec<String>,
    /// The types of those columns.
    types: Vec<String>,
    /// The columns of the parent, quoted.
    keys: Vec<String>,
    /// The operators that compare a parent's column with the child's.
    operators: Vec<String>,
}

#[derive(Deserialize)]
struct Name {
    schema: String,
    name: String,
}

impl Name {
    fn sql(&self) -> String {
        Qualified::new(&self.schema, &self.name).sql()
    }
}

impl ForeignKey {
    /// Whether the parent's row `p` is the one of the child's values, which `value` writes.
    fn condition(&self, value: impl Fn(usize) -> String) -> String {
        let parts = self.keys.iter().zip(&self.operators).enumerate();
        let parts: Vec<String> = parts.map(|(nth, (key, operator))| format!("p.{key} {operator} {}", value(nth))).collect();
        parts.join(" and ")
    }

    /// The values of children whose parents the stand-in lacks, as texts.
    fn missing(&self) -> String {
        let texts: Vec<String> = self.columns.iter().map(|column| format!("format('%s', c.{column})")).collect();
        let present: Vec<String> = self.columns.iter().map(|column| format!("c.{column} is not null")).collect();
        format!(
            "select distinct array[{}]
             from {} c
             where {}
               and not exists (select from {} p where {})",
            texts.join(", "),
            self.child.sql(),
            present.join(" and "),
            self.parent.sql(),
            self.condition(|nth| format!("c.{}", self.columns[nth]))
        )
    }

    /// The parents' rows of these values.
    fn parents(&self, parent: &Table, values: &[Vec<String>]) -> String {
        let columns: Vec<String> = parent.columns.iter().map(|column| format!("p.{column}")).collect();
        let arrays = (0..self.columns.len()).map(|nth| {
            let quoted: Vec<String> = values.iter().map(|value| quote_literal(&value[nth])).collect();
            format!("array[{}]::text[]", quoted.join(", "))
        });
        let names: Vec<String> = (0..self.columns.len()).map(|nth| format!("v{nth}")).collect();
        format!(
            "select {}
             from {} p
             where exists (select from unnest({}) v ({}) where {})",
            columns.join(", "),
            parent.from(),
            arrays.collect::<Vec<_>>().join(", "),
            names.join(", "),
            self.condition(|nth| format!("v.v{nth}::{}", self.types[nth]))
        )
    }
}

/// A key to a partition brings its row through the root, which routes it back there.
const FOREIGN_KEYS: &str = r"
    select
        o.oid::text as id,
        jsonb_build_object('schema', cn.nspname, 'name', c.relname) as child,
        jsonb_build_object('schema', pn.nspname, 'name', p.relname) as parent,
        array_agg(quote_ident(ca.attname) order by u.nth) as columns,
        array_agg(format_type(ca.atttypid, ca.atttypmod) order by u.nth) as types,
        array_agg(quote_ident(pa.attname) order by u.nth) as keys,
        array_agg(format('operator(%I.%s)', n.nspname, e.oprname) order by u.nth) as operators
    from pg_constraint o
    join pg_class c on c.oid = o.conrelid
    join pg_namespace cn on cn.oid = c.relnamespace
    join pg_class p on p.oid = coalesce(pg_partition_root(o.confrelid)::oid, o.confrelid)
    join pg_namespace pn on pn.oid = p.relnamespace
    cross join lateral unnest(o.conkey, o.confkey, o.conpfeqop) with ordinality u (child, parent, operator, nth)
    join pg_attribute ca on ca.attrelid = o.conrelid and ca.attnum = u.child
    join pg_attribute pa on pa.attrelid = o.confrelid and pa.attnum = u.parent
    join pg_operator e on e.oid = u.operator
    join pg_namespace n on n.oid = e.oprnamespace
    where o.contype = 'f'
      and o.conparentid = 0
    group by o.oid, cn.nspname, c.relname, pn.nspname, p.relname
    order by o.oid";
