//! What the catalog says of the tables that move.

use anyhow::Result;
use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::names::{Qualified, quote_literal};

/// A table that moves; a partitioned one as its root.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Its name.
    pub name: Qualified,
    /// `pg_class.oid`.
    pub oid: i64,
    /// Whether it has partitions.
    pub partitioned: bool,
    /// Name and type of the columns that identify a row: of the primary key, or the replica identity's index. Empty if there
    /// is none.
    pub key: Vec<(String, String)>,
    /// All columns of a row `t`, in order, as they are hashed: by the hash of their type where equal means the same to the bit,
    /// else by the hash of their text.
    pub hashed: Vec<String>,
    /// Rows, as the statistics guess.
    pub estimate: i64,
    /// Size with its partitions, without indexes, in bytes.
    pub bytes: i64,
}

/// An SQL list of `(schema, name)` for `in (…)`, of relations.
pub fn listed(relations: &[Qualified]) -> String {
    let pairs = relations
        .iter()
        .map(|relation| format!("({}::name, {}::name)", quote_literal(&relation.schema), quote_literal(&relation.name)));
    pairs.collect::<Vec<_>>().join(", ")
}

/// A query for the oids of these tables and all their partitions, the roots included.
pub fn oids(tables: &[Qualified]) -> String {
    format!(
        "select t.relid::oid
         from pg_class r
         join pg_namespace n on n.oid = r.relnamespace
         cross join lateral (
             select r.oid as relid
             union
             select p.relid from pg_partition_tree(r.oid) p
         ) t
         where (n.nspname, r.relname) in ({})",
        listed(tables)
    )
}

/// The tables, as the database has them; those it does not have are left out.
pub async fn tables(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Table>> {
    let statement = format!(
        "select n.nspname::text, c.relname::text, c.oid::bigint, c.relkind = 'p',
             array(
                 select case
                     when a.atttypid in ('bool'::regtype, '\"char\"'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype,
                         'uuid'::regtype, 'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'bytea'::regtype, 'xid8'::regtype)
                         then format('t.%I', a.attname)
                     when a.atttypid in ('text'::regtype, 'varchar'::regtype) then format('t.%I collate \"C\"', a.attname)
                     else format('t.%I::text collate \"C\"', a.attname)
                 end
                 from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
             array(select a.attname::text from unnest(k.indkey::int2[]) with ordinality u (attnum, place) join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum where u.place <= k.indnkeyatts order by u.place),
             array(select format_type(a.atttypid, a.atttypmod) from unnest(k.indkey::int2[]) with ordinality u (attnum, place) join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum where u.place <= k.indnkeyatts order by u.place),
             (select coalesce(sum(greatest(p.reltuples, 0)), 0)::bigint from pg_class p where p.oid in (select c.oid union select relid from pg_partition_tree(c.oid)) and p.relkind = 'r'),
             (select coalesce(sum(pg_table_size(p.oid)), 0)::bigint from pg_class p where p.oid in (select c.oid union select relid from pg_partition_tree(c.oid)) and p.relkind = 'r')
         from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         left join lateral (
             select i.indkey, i.indnkeyatts
             from pg_index i
             where i.indrelid = c.oid and i.indisvalid
               and (i.indisreplident or (i.indisprimary and c.relreplident in ('d', 'f')))
             order by i.indisreplident desc
             limit 1
         ) k on true
         where c.relkind in ('r', 'p') and (n.nspname, c.relname) in ({})
         order by 1, 2",
        listed(tables)
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(connection).await?;
    let read = rows.into_iter().map(|row| {
        let (key, types): (Vec<String>, Vec<String>) = (row.try_get(5)?, row.try_get(6)?);
        Ok(Table {
            name: Qualified::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?),
            oid: row.try_get(2)?,
            partitioned: row.try_get(3)?,
            key: key.into_iter().zip(types).collect(),
            hashed: row.try_get(4)?,
            estimate: row.try_get(7)?,
            bytes: row.try_get(8)?,
        })
    });
    read.collect()
}

/// The shape of the tables: what must not change while they move, line by line and the same on both sides. Rights, triggers,
/// comments and foreign keys are not part of it; partitions are, since rows find their way by them.
pub async fn shape(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<String>> {
    let oids = oids(tables);
    let statement = format!(
        "with moving as ({oids})
         select format('column %s.%s of %s is %s%s%s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
             case when a.attnotnull then ' not null' else '' end,
             case when a.attidentity <> '' then ' identity ' || a.attidentity::text else '' end,
             case when a.attgenerated <> '' then ' generated as ' else ' default ' end,
             coalesce((select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum), 'none'))
         from moving m
         join pg_class c on c.oid = m.relid
         join pg_namespace n on n.oid = c.relnamespace
         join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relkind in ('r', 'p')
         union all
         select format('constraint %s on %s.%s is %s', o.conname, n.nspname, c.relname, pg_get_constraintdef(o.oid))
         from moving m
         join pg_class c on c.oid = m.relid
         join pg_namespace n on n.oid = c.relnamespace
         join pg_constraint o on o.conrelid = c.oid and o.contype in ('p', 'u', 'c', 'x')
         union all
         select format('unique index %s on %s.%s is %s', i.relname, n.nspname, c.relname, pg_get_indexdef(x.indexrelid))
         from moving m
         join pg_class c on c.oid = m.relid
         join pg_namespace n on n.oid = c.relnamespace
         join pg_index x on x.indrelid = c.oid and x.indisunique
         join pg_class i on i.oid = x.indexrelid
         union all
         select format('partition %s.%s is %s', n.nspname, c.relname, coalesce(pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)))
         from moving m
         join pg_class c on c.oid = m.relid and (c.relispartition or c.relkind = 'p')
         join pg_namespace n on n.oid = c.relnamespace
         order by 1"
    );
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(connection).await?)
}

/// What one list has and the other has not: at most a few lines, for people.
pub fn differences(here: &[String], there: &[String]) -> Vec<String> {
    const TOLD: usize = 8;
    let only = |a: &[String], b: &[String], sign: char| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let mut lines = only(here, there, '-');
    lines.extend(only(there, here, '+'));
    lines.truncate(TOLD);
    lines
}
