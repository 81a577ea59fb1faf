//! The moving tables, as the catalog describes them.

use anyhow::Result;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use crate::names::Qualified;

/// A moving table. Of a partitioned table this is the root.
#[derive(Debug, Clone, FromRow)]
pub struct Table {
    /// Its name.
    #[sqlx(flatten)]
    pub name: Qualified,
    /// Whether it is the root of partitions.
    pub is_partitioned: bool,
    /// The columns that identify a row: of the primary key, or of the replica identity's index. Empty if there are none.
    pub key: Vec<String>,
    /// The types of those columns.
    pub key_types: Vec<String>,
    /// Those columns of a row `t`, each with the collation of the key's index.
    pub key_columns: Vec<String>,
    /// The operators of the key's index for lesser keys, one for each column, with their schemas.
    pub key_less: Vec<String>,
    /// The operators for keys that are at most another.
    pub key_at_most: Vec<String>,
    /// The operators for equal keys.
    pub key_equal: Vec<String>,
    /// The operators for greater keys.
    pub key_greater: Vec<String>,
    /// All columns of a row `t`, in order, as they are hashed. A column is hashed by the hash of its type if equal values
    /// are equal to the bit, else by the hash of its text. In a table without a key, replication finds a row by the types'
    /// own equality (`1.0 = 1.00`), so there every column whose type can be hashed is hashed by its type.
    pub hashed: Vec<String>,
    /// The number of rows, as Postgres' planner estimates it: by the size of today, with as many rows in a page as the
    /// statistics say, or as the types suggest.
    pub estimate: i64,
    /// The size with all partitions, without indexes, in bytes.
    pub bytes: i64,
}

impl Table {
    /// What a query reads its rows from.
    pub fn rows(&self) -> String {
        self.name.rows(self.is_partitioned)
    }
}

/// The oids of relations and of all their partitions. Relations that do not exist are left out.
pub async fn oids(connection: &mut PgConnection, relations: &[Qualified]) -> Result<Vec<Oid>, sqlx::Error> {
    let (schemas, names) = Qualified::arrays(relations);
    query_scalar(OIDS).bind(schemas).bind(names).fetch_all(connection).await
}

/// Runs a statement whose `$1` is the oids of the relations and their partitions.
pub async fn select<T>(
    connection: &mut PgConnection,
    statement: &'static str,
    relations: &[Qualified],
) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'row> FromRow<'row, PgRow> + Send + Unpin,
{
    let oids = oids(connection, relations).await?;
    query_as(statement).bind(oids).fetch_all(connection).await
}

/// Does the same for a statement that returns lines of text.
pub async fn select_lines(
    connection: &mut PgConnection,
    statement: &'static str,
    relations: &[Qualified],
) -> Result<Vec<String>, sqlx::Error> {
    let oids = oids(connection, relations).await?;
    query_scalar(statement).bind(oids).fetch_all(connection).await
}

/// Those of the tables that the database has.
pub async fn tables(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Table>, sqlx::Error> {
    let (schemas, names) = Qualified::arrays(tables);
    query_as(TABLES).bind(schemas).bind(names).fetch_all(connection).await
}

/// The tables and their partitions.
pub async fn with_partitions(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>, sqlx::Error> {
    select(connection, NAMES, tables).await
}

/// The tables and partitions whose replica identity is `full`.
pub async fn full_identities(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Qualified>, sqlx::Error> {
    select(connection, FULL_IDENTITIES, tables).await
}

/// Quoted names, separated by commas.
pub fn list(relations: &[Qualified]) -> String {
    relations.iter().map(Qualified::sql).collect::<Vec<_>>().join(", ")
}

pub(super) const OIDS: &str = r"
    select t.relid
    from unnest($1::text[], $2::text[]) listed (schema, name)
    join pg_namespace n on n.nspname = listed.schema
    join pg_class r on r.relnamespace = n.oid and r.relname = listed.name
    cross join lateral (
        select r.oid as relid
        union
        select p.relid::oid from pg_partition_tree(r.oid) p
    ) t";

/// The index whose columns identify a row of the table `c`: the part of a query from its `from` on. What is no B-tree, such
/// as a key without overlaps, does not order rows, so it does not count.
macro_rules! key_index {
    () => {
        "
        from pg_index x
        join pg_class xc on xc.oid = x.indexrelid
        join pg_am m on m.oid = xc.relam and m.amname = 'btree'
        where x.indrelid = c.oid
          and x.indisvalid
          and x.indimmediate
          and (x.indisreplident or (x.indisprimary and c.relreplident in ('d', 'f')))
        order by x.indisreplident desc
        limit 1"
    };
}
pub(crate) use key_index;

const TABLES: &str = concat!(
    r#"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        c.relkind = 'p' as is_partitioned,
        k.key,
        k.key_types,
        k.key_columns,
        k.key_less,
        k.key_at_most,
        k.key_equal,
        k.key_greater,
        h.hashed,
        s.estimate,
        s.bytes
    from unnest($1::text[], $2::text[]) listed (schema, name)
    join pg_namespace n on n.nspname = listed.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = listed.name and c.relkind in ('r', 'p')
    left join lateral (
        select
            x.indkey::int2[] as columns,
            x.indclass::oid[] as classes,
            x.indcollation::oid[] as collations,
            x.indnkeyatts as length"#,
    key_index!(),
    r#"
    ) i on true
    cross join lateral (
        select
            coalesce(array_agg(a.attname::text order by u.nth), '{}') as key,
            coalesce(array_agg(format_type(a.atttypid, a.atttypmod) order by u.nth), '{}') as key_types,
            coalesce(array_agg(format('t.%I', a.attname) || coalesce(l.collated, '') order by u.nth), '{}') as key_columns,
            coalesce(array_agg(o.less order by u.nth), '{}') as key_less,
            coalesce(array_agg(o.at_most order by u.nth), '{}') as key_at_most,
            coalesce(array_agg(o.equal order by u.nth), '{}') as key_equal,
            coalesce(array_agg(o.greater order by u.nth), '{}') as key_greater
        from unnest(i.columns) with ordinality u (attnum, nth)
        join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum
        left join lateral (
            select format(' collate %I.%I', ln.nspname, co.collname) as collated
            from pg_collation co
            join pg_namespace ln on ln.oid = co.collnamespace
            where co.oid = (i.collations)[u.nth - 1 + array_lower(i.collations, 1)]
        ) l on true
        cross join lateral (
            select
                max(q.operator) filter (where q.strategy = 1) as less,
                max(q.operator) filter (where q.strategy = 2) as at_most,
                max(q.operator) filter (where q.strategy = 3) as equal,
                max(q.operator) filter (where q.strategy = 5) as greater
            from (
                select format('operator(%I.%s)', pn.nspname, p.oprname) as operator, m.amopstrategy as strategy
                from pg_opclass oc
                join pg_amop m
                  on m.amopfamily = oc.opcfamily
                 and m.amoplefttype = oc.opcintype
                 and m.amoprighttype = oc.opcintype
                join pg_operator p on p.oid = m.amopopr
                join pg_namespace pn on pn.oid = p.oprnamespace
                where oc.oid = (i.classes)[u.nth - 1 + array_lower(i.classes, 1)]
            ) q
        ) o
        where u.nth <= i.length
    ) k
    cross join lateral (
        select coalesce(array_agg(
            case
                when a.atttypid in (
                    'bool'::regtype, '"char"'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype,
                    'uuid'::regtype, 'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype,
                    'bytea'::regtype, 'xid8'::regtype
                ) then format('t.%I', a.attname)
                when a.atttypid in ('text'::regtype, 'varchar'::regtype) then format('t.%I collate "C"', a.attname)
                when k.key = '{}' and y.is_hashed then format('t.%I', a.attname)
                else format('t.%I::text collate "C"', a.attname)
            end
            order by a.attnum
        ), '{}') as hashed
        from pg_attribute a
        cross join lateral (
            select exists (
                select
                from pg_opclass oc
                join pg_am am on am.oid = oc.opcmethod and am.amname = 'hash'
                join pg_amproc f
                  on f.amprocfamily = oc.opcfamily
                 and f.amproclefttype = oc.opcintype
                 and f.amprocnum = 2
                where oc.opcintype = a.atttypid
                  and oc.opcdefault
            ) as is_hashed
        ) y
        where a.attrelid = c.oid
          and a.attnum > 0
          and not a.attisdropped
    ) h
    cross join lateral (
        select
            coalesce(sum(
                pg_relation_size(p.oid) / current_setting('block_size')::float8 * coalesce(
                    p.reltuples / nullif(p.relpages, 0),
                    current_setting('block_size')::float8 / w.width
                )
            ), 0)::int8 as estimate,
            coalesce(sum(pg_table_size(p.oid)), 0)::int8 as bytes
        from pg_class p
        cross join lateral (
            select 28 + coalesce(sum(case when a.attlen > 0 then a.attlen else 32 end), 0) as width
            from pg_attribute a
            where a.attrelid = p.oid
              and a.attnum > 0
        ) w
        where p.oid in (select c.oid union select relid from pg_partition_tree(c.oid))
          and p.relkind = 'r'
    ) s
    order by 1, 2"#
);

const NAMES: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
    order by 1, 2";

const FULL_IDENTITIES: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and c.relreplident = 'f'
    order by 1, 2";
