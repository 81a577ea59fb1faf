//! The definitions of the owner's tables at one moment, as far as the stream depends on them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use crate::manifest::Owner;
use crate::moving::{definitions, relations};
use crate::names::Qualified;

/// The definitions at one moment.
#[derive(Default)]
pub struct Seen {
    pub columns: BTreeMap<(Qualified, String), Column>,
    pub constraints: BTreeMap<(Qualified, String), String>,
    pub keys: BTreeMap<Qualified, Vec<String>>,
    /// What else the stream depends on, in lines: unique indexes, partitions, types, faults.
    pub lines: BTreeSet<String>,
    /// The rows that the transaction has written.
    pub written: i64,
}

/// A column.
#[derive(FromRow)]
pub struct Column {
    #[sqlx(flatten)]
    pub table: Qualified,
    pub column: String,
    pub is_partition: bool,
    pub type_oid: i64,
    pub modifier: i32,
    pub is_not_null: bool,
    pub default: Option<String>,
    pub is_generated: bool,
    /// Whether existing rows get the same value on both sides.
    pub is_fixed: bool,
}

#[derive(FromRow)]
struct Constraint {
    #[sqlx(flatten)]
    table: Qualified,
    constraint: String,
    definition: String,
}

impl Seen {
    /// Reads the definitions of the owner's tables.
    pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Self> {
        let columns = relations::select::<Column>(connection, COLUMNS, &owner.tables).await?;
        let constraints = relations::select::<Constraint>(connection, CONSTRAINTS, &owner.tables).await?;
        let lines = definitions::read(connection, &owner.tables).await?;
        let own = |line: &String| !line.starts_with("column ") && !line.starts_with("constraint ");
        let tables = relations::tables(connection, &owner.tables).await?;
        let written: Vec<(i64,)> = relations::select(connection, WRITTEN, &owner.tables).await?;
        Ok(Self {
            columns: columns.into_iter().map(|found| ((found.table.clone(), found.column.clone()), found)).collect(),
            constraints: constraints.into_iter().map(|found| ((found.table, found.constraint), found.definition)).collect(),
            keys: tables.into_iter().map(|table| (table.name, table.key)).collect(),
            lines: lines.into_iter().filter(own).collect(),
            written: written.first().map_or(0, |(rows,)| *rows),
        })
    }

    /// The types that columns changed to, with those that they had: the catalog says whether every value fits.
    pub fn retyped(&self, after: &Self) -> Vec<[(i64, i32); 2]> {
        let changed = self.columns.iter().filter_map(|(name, was)| Some((was, after.columns.get(name)?)));
        let types = changed.map(|(was, is)| [was, is].map(|column| (column.type_oid, column.modifier)));
        types.filter(|[was, is]| was != is).collect()
    }
}

const COLUMNS: &str = r"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        a.attname::text as column,
        c.relispartition as is_partition,
        a.atttypid::int8 as type_oid,
        a.atttypmod as modifier,
        a.attnotnull as is_not_null,
        pg_get_expr(d.adbin, d.adrelid) as default,
        a.attgenerated <> '' as is_generated,
        a.attidentity = '' and not coalesce(
            d.adbin::text ~ 'SQLVALUEFUNCTION|NEXTVALUEEXPR'
            or exists (
                select
                from regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') used
                join pg_proc p on p.oid = used[1]::oid
                where p.provolatile <> 'i'
            ),
            false
        ) as is_fixed
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')";

/// A partition repeats the constraints of its root.
const CONSTRAINTS: &str = r"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        o.conname::text as constraint,
        pg_get_constraintdef(o.oid) as definition
    from pg_constraint o
    join pg_class c on c.oid = o.conrelid
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and o.contype in ('p', 'u', 'c', 'x')
      and o.coninhcount = 0";

const WRITTEN: &str = r"
    select coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::int8
    from pg_stat_xact_all_tables s
    where s.relid = any ($1)";

/// Whether a column of the second type takes the text of each value of the first, and means the same by it.
pub const FITS: &str = r"
    select
        o.oid = n.oid and ($4 = -1 or o.typcategory in ('S', 'V') and $4 > $2)
        or $4 = -1
       and o.oid <> 'float4'::regtype
       and o.typcategory = n.typcategory
       and n.typcategory in ('N', 'S')
       and exists (
           select
           from pg_cast c
           where c.castsource = o.oid
             and c.casttarget = n.oid
             and c.castcontext = 'i'
       )
    from pg_type o, pg_type n
    where o.oid = $1::int8::oid
      and n.oid = $3::int8::oid";
