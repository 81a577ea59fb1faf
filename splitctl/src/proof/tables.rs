//! The owner's relations as the application's role sees them: its rights on each column, and what makes a row unique.

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, query_as};

use super::known::{Origin, Statement};
use crate::moving::key_index;
use crate::names::{Qualified, quote_ident};

/// A table or view.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Table {
    #[sqlx(flatten)]
    pub name: Qualified,
    pub is_view: bool,
    pub can_delete: bool,
    pub columns: Json<Vec<Column>>,
    /// The columns of each unique index and exclusion constraint.
    pub unique: Json<Vec<Vec<String>>>,
    /// Whether a constraint excludes rows otherwise than by equality, so that a changed value is no way to a new row.
    pub excludes: bool,
}

/// A column.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Column {
    pub name: String,
    /// Whether Postgres alone computes it: a generated column.
    pub is_computed: bool,
    /// Whether it is an identity column that takes no value of a statement.
    pub is_identity: bool,
    /// Whether its default gives another value each time, or calls a function of the application.
    pub is_fresh: bool,
    /// Whether a foreign key or the partition depends on it.
    pub is_bound: bool,
    /// Whether it is in the key that identifies a row.
    pub is_key: bool,
    /// The category of its type.
    pub category: String,
    /// Its base type.
    pub base: String,
    pub can_select: bool,
    pub can_insert: bool,
    pub can_update: bool,
}

impl Table {
    /// The columns that identify a row. Empty if the role may not read them.
    pub fn key(&self) -> Vec<&Column> {
        let key: Vec<_> = self.columns.iter().filter(|column| column.is_key).collect();
        if key.iter().all(|column| column.can_select) { key } else { Vec::new() }
    }

    /// The columns that an insert gives values to.
    pub fn inserted(&self) -> Vec<&Column> {
        let takes = |column: &&Column| column.can_insert && !column.is_computed && !column.is_identity;
        if self.is_view { Vec::new() } else { self.columns.iter().filter(takes).collect() }
    }

    /// The columns that an update gives values to.
    pub fn updated(&self) -> Vec<&Column> {
        let takes = |column: &&Column| column.can_update && !column.is_computed && !column.is_identity;
        if self.is_view { Vec::new() } else { self.columns.iter().filter(takes).collect() }
    }

    /// One statement for each kind of right that the role has on it.
    pub fn statements(&self) -> Vec<Statement> {
        let (table, key) = (self.name.sql(), self.key());
        let mut statements = Vec::new();
        let read: Vec<_> = self.columns.iter().filter(|column| column.can_select).collect();
        if !read.is_empty() {
            statements.push(("select", format!("select {} from {table}", names(&read))));
        }
        let inserted = self.inserted();
        if !inserted.is_empty() {
            let values: Vec<String> = (1..=inserted.len()).map(|number| format!("${number}")).collect();
            statements
                .push(("insert", format!("insert into {table} ({}) values ({})", names(&inserted), values.join(", "))));
        }
        let updated = self.updated();
        if !updated.is_empty() {
            let sets: Vec<String> =
                (1..).zip(&updated).map(|(number, column)| format!("{} = ${number}", column.sql())).collect();
            statements.push(("update", format!("update {table} set {}{}", sets.join(", "), condition(&key, updated.len()))));
        }
        if self.can_delete && !self.is_view {
            statements.push(("delete", format!("delete from {table}{}", condition(&key, 0))));
        }
        let built = |(kind, text)| Statement {
            text,
            subject: format!("{kind} on {}", self.name),
            place: "tried for each table".to_owned(),
            origin: Origin::Built,
        };
        statements.into_iter().map(built).collect()
    }
}

impl Column {
    /// Its quoted name.
    pub fn sql(&self) -> String {
        quote_ident(&self.name)
    }
}

/// Quoted names, separated by commas.
pub(super) fn names(columns: &[&Column]) -> String {
    columns.iter().map(|column| column.sql()).collect::<Vec<_>>().join(", ")
}

fn condition(key: &[&Column], used: usize) -> String {
    let equal: Vec<String> = (used + 1..).zip(key).map(|(number, column)| format!("{} = ${number}", column.sql())).collect();
    if equal.is_empty() { String::new() } else { format!(" where {}", equal.join(" and ")) }
}

/// Reads them in a session of the role.
pub(super) async fn read(connection: &mut PgConnection, relations: &[Qualified]) -> Result<Vec<Table>, sqlx::Error> {
    let (schemas, names) = Qualified::arrays(relations);
    query_as(TABLES).persistent(false).bind(schemas).bind(names).fetch_all(connection).await
}

/// A default is fresh if it calls a volatile function, or one of the application. A sequence's `nextval` is volatile.
const TABLES: &str = concat!(
    r#"
    select
        n.nspname::text as schema,
        c.relname::text as name,
        c.relkind in ('v', 'm') as is_view,
        has_table_privilege(c.oid, 'delete') as can_delete,
        l.columns,
        u.listed as "unique",
        exists (select from pg_constraint x where x.conrelid = c.oid and x.contype = 'x') as excludes
    from unnest($1::text[], $2::text[]) listed (schema, name)
    join pg_namespace n on n.nspname = listed.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = listed.name
    left join pg_partitioned_table p on p.partrelid = c.oid
    left join lateral (
        select x.indkey::int2[] as columns"#,
    key_index!(),
    r#"
    ) k on true
    cross join lateral (
        select coalesce(
            jsonb_agg(
                jsonb_build_object(
                    'name', a.attname,
                    'is_computed', a.attgenerated <> '',
                    'is_identity', a.attidentity <> '',
                    'is_fresh', a.attidentity <> '' or exists (
                        select
                        from pg_attrdef d
                        cross join lateral pg_get_expr(d.adbin, d.adrelid) e (expression)
                        cross join lateral regexp_matches(e.expression, '([^[:space:]."(]+)"?[(]', 'g') m (found)
                        join pg_proc f on f.proname = m.found[1]
                        where d.adrelid = c.oid
                          and d.adnum = a.attnum
                          and (f.provolatile = 'v' or f.oid >= 16384)
                    ),
                    'is_bound', a.attnum = any (p.partattrs::int2[]) is true or exists (
                        select
                        from pg_constraint f
                        where f.conrelid = c.oid
                          and f.contype = 'f'
                          and a.attnum = any (f.conkey)
                    ),
                    'is_key', a.attnum = any (k.columns) is true,
                    'category', b.typcategory,
                    'base', b.oid::regtype::text,
                    'can_select', has_column_privilege(c.oid, a.attnum, 'select'),
                    'can_insert', has_column_privilege(c.oid, a.attnum, 'insert'),
                    'can_update', has_column_privilege(c.oid, a.attnum, 'update')
                )
                order by a.attnum
            ),
            '[]'
        ) as columns
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        join pg_type b on b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
        where a.attrelid = c.oid
          and a.attnum > 0
          and not a.attisdropped
    ) l
    cross join lateral (
        select coalesce(jsonb_agg(i.columns), '[]') as listed
        from (
            select jsonb_agg(distinct a.attname) as columns
            from pg_index x
            join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = x.indexrelid
            join pg_attribute a on a.attrelid = x.indrelid and a.attnum = d.refobjsubid
            where x.indrelid = c.oid
              and x.indisunique
              and d.refclassid = 'pg_class'::regclass
              and d.refobjid = c.oid
              and d.refobjsubid > 0
            group by x.indexrelid
            union all
            select jsonb_agg(distinct a.attname)
            from pg_constraint o
            join pg_attribute a on a.attrelid = c.oid and a.attnum = any (o.conkey)
            where o.conrelid = c.oid
              and o.contype in ('p', 'u')
            group by o.oid
        ) i
    ) u
    order by 1, 2"#
);
