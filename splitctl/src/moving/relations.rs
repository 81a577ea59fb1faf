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
    /// The columns that identify a row: of the primary key, or of the replica identity's index. Empty if there are none.
    pub key: Vec<String>,
    /// The types of those columns.
    pub key_types: Vec<String>,
    /// All columns of a row `t`, in order, as they are hashed. A column is hashed by the hash of its type if equal values
    /// are equal to the bit, else by the hash of its text.
    pub hashed: Vec<String>,
    /// The number of rows, as the statistics estimate it.
    pub estimate: i64,
    /// The size with all partitions, without indexes, in bytes.
    pub bytes: i64,
}

/// The oids of relations and of all their partitions. Relations that do not exist are left out.
pub async fn oids(connection: &mut PgConnection, relations: &[Qualified]) -> Result<Vec<Oid>, sqlx::Error> {
    let (schemas, names) = arrays(relations);
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
    let (schemas, names) = arrays(tables);
    query_as(TABLES).bind(schemas).bind(names).fetch_all(connection).await
}

/// The shape of the tables: the definitions that must not change during a move. Its lines are the same on both sides.
/// Rights, triggers, comments and foreign keys are not part of it. Partitions are, because they route rows.
pub async fn shape(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>, sqlx::Error> {
    select_lines(connection, SHAPE, tables).await
}

/// The first few lines that only one of two shapes has.
pub fn differences(here: &[String], there: &[String]) -> Vec<String> {
    const SHOWN: usize = 8;
    let only = |a: &[String], b: &[String], sign: char| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut lines = only(here, there, '-');
    lines.extend(only(there, here, '+'));
    lines.truncate(SHOWN);
    lines
}

/// Quoted names, separated by commas.
pub fn list(relations: &[Qualified]) -> String {
    relations.iter().map(Qualified::sql).collect::<Vec<_>>().join(", ")
}

fn arrays(relations: &[Qualified]) -> (Vec<&str>, Vec<&str>) {
    relations.iter().map(|relation| (relation.schema.as_str(), relation.name.as_str())).unzip()
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

const TABLES: &str = r#"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        k.key,
        k.key_types,
        h.hashed,
        s.estimate,
        s.bytes
    from unnest($1::text[], $2::text[]) listed (schema, name)
    join pg_namespace n on n.nspname = listed.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = listed.name and c.relkind in ('r', 'p')
    left join lateral (
        select x.indkey::int2[] as columns, x.indnkeyatts as length
        from pg_index x
        where x.indrelid = c.oid
          and x.indisvalid
          and x.indimmediate
          and (x.indisreplident or (x.indisprimary and c.relreplident in ('d', 'f')))
        order by x.indisreplident desc
        limit 1
    ) i on true
    cross join lateral (
        select
            coalesce(array_agg(a.attname::text order by u.nth), '{}') as key,
            coalesce(array_agg(format_type(a.atttypid, a.atttypmod) order by u.nth), '{}') as key_types
        from unnest(i.columns) with ordinality u (attnum, nth)
        join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum
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
                else format('t.%I::text collate "C"', a.attname)
            end
            order by a.attnum
        ), '{}') as hashed
        from pg_attribute a
        where a.attrelid = c.oid
          and a.attnum > 0
          and not a.attisdropped
    ) h
    cross join lateral (
        select
            coalesce(sum(greatest(p.reltuples, 0)), 0)::int8 as estimate,
            coalesce(sum(pg_table_size(p.oid)), 0)::int8 as bytes
        from pg_class p
        where p.oid in (select c.oid union select relid from pg_partition_tree(c.oid))
          and p.relkind = 'r'
    ) s
    order by 1, 2"#;

/// The journal of an open move holds these lines: to change their text is to change the journal's version.
pub(super) const SHAPE: &str = r"
    select format(
        'column %s.%s of %s is %s%s%s%s%s',
        n.nspname,
        c.relname,
        a.attname,
        format_type(a.atttypid, a.atttypmod),
        case when a.attnotnull then ' not null' else '' end,
        case when a.attidentity <> '' then ' identity ' || a.attidentity::text else '' end,
        case when a.attgenerated <> '' then ' generated as ' else ' default ' end,
        coalesce(pg_get_expr(d.adbin, d.adrelid), 'none')
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')
    union all
    select format('constraint %s on %s.%s is %s', o.conname, n.nspname, c.relname, pg_get_constraintdef(o.oid))
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_constraint o on o.conrelid = c.oid and o.contype in ('p', 'u', 'c', 'x')
    where c.oid = any ($1)
    union all
    select format('unique index %s on %s.%s is %s', i.relname, n.nspname, c.relname, pg_get_indexdef(x.indexrelid))
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_index x on x.indrelid = c.oid and x.indisunique
    join pg_class i on i.oid = x.indexrelid
    where c.oid = any ($1)
    union all
    select format(
        'partition %s.%s is %s',
        n.nspname,
        c.relname,
        coalesce(pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid))
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and (c.relispartition or c.relkind = 'p')
    union all
    select format('type %s has the values %s', t.oid::regtype, v.listed)
    from pg_type t
    cross join lateral (
        select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) as listed
        from pg_enum e
        where e.enumtypid = t.oid
    ) v
    where t.typtype = 'e'
      and t.oid in (
          select coalesce(nullif(y.typelem, 0), y.oid)
          from pg_attribute a
          join pg_type y on y.oid = a.atttypid
          where a.attrelid = any ($1)
            and a.attnum > 0
            and not a.attisdropped
      )
    order by 1";
