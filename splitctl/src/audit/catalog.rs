//! The relations that an owner can list, as the catalog has them. System schemas, members of extensions, the schema
//! `splitctl` and tables that no owner has are left out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, query_as};

use super::unowned;
use crate::manifest::{Manifest, Owner};
use crate::names::Qualified;

/// A statement, then the condition that its schema `n` is a user's, then its end.
macro_rules! in_user_schemas {
    ($statement:literal, $end:literal) => {
        concat!($statement, " and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'splitctl')", $end)
    };
}
pub(super) use in_user_schemas;

/// A table, view, materialised view or sequence.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Relation {
    /// Its oid.
    pub oid: i64,
    /// Its name.
    #[sqlx(flatten)]
    pub name: Qualified,
    /// Its kind.
    #[sqlx(try_from = "String")]
    pub kind: RelationKind,
    /// The partitioned table at the top, if it is a partition; else itself.
    pub root: i64,
    /// The role that owns it.
    pub role: String,
    /// Its columns, in order.
    pub columns: Vec<String>,
}

/// The kinds of relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A table, partitioned or not.
    Table,
    /// A view, materialised or not.
    View,
    /// A sequence.
    Sequence,
    /// A table of another server. It has no owner, and never moves.
    Foreign,
}

/// From `pg_class.relkind`.
impl From<String> for RelationKind {
    fn from(kind: String) -> Self {
        match kind.as_str() {
            "S" => Self::Sequence,
            "v" | "m" => Self::View,
            "f" => Self::Foreign,
            _ => Self::Table,
        }
    }
}

/// A default that takes numbers from a sequence.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SequenceDefault {
    /// The table.
    pub table: i64,
    /// The column with the default.
    pub column: String,
    /// The sequence.
    pub sequence: i64,
}

/// What the audit reads of the catalog.
#[derive(Debug, Default)]
pub struct Catalog {
    /// All relations by oid.
    pub relations: BTreeMap<i64, Relation>,
    /// The relations that each view, or table with rules, reads directly.
    pub reads: BTreeMap<i64, BTreeSet<i64>>,
    /// Defaults that take numbers from sequences, without identity columns.
    pub sequence_defaults: Vec<SequenceDefault>,
    /// The table that each sequence is dropped with.
    pub sequence_tables: BTreeMap<i64, i64>,
    /// The tables that no owner has. They are not among the relations.
    pub unowned: BTreeSet<Qualified>,
}

impl Catalog {
    /// Reads the catalog. A table that looks like a migration tool's has no owner, unless the manifest lists one.
    pub async fn read(connection: &mut PgConnection, manifest: Option<&Manifest>) -> Result<Self> {
        let keeps = |table: &Qualified, recognised: bool| match manifest {
            Some(manifest) if manifest.unowned.contains(table) => true,
            Some(manifest) if manifest.owner_of(table).is_some() => false,
            _ => recognised,
        };
        let mut catalog = Self::read_but(connection, keeps).await?;
        catalog.relations.retain(|_, relation| relation.kind != RelationKind::Foreign);
        catalog.reads.values_mut().for_each(|read| read.retain(|oid| catalog.relations.contains_key(oid)));
        Ok(catalog)
    }

    /// Reads it for a move: what this owner does not list stays, whoever has it.
    pub async fn of_move(connection: &mut PgConnection, owner: &Owner) -> Result<Self> {
        let keeps = |table: &Qualified, recognised: bool| {
            owner.unowned.contains(table) || recognised && !owner.tables.contains(table)
        };
        Self::read_but(connection, keeps).await
    }

    /// Reads it without the tables that each database keeps for itself. The second argument of `keeps` says whether the
    /// table looks like a migration tool's.
    async fn read_but(connection: &mut PgConnection, keeps: impl Fn(&Qualified, bool) -> bool) -> Result<Self> {
        let relations: Vec<Relation> = query_as(RELATIONS).fetch_all(&mut *connection).await?;
        let relations = relations.into_iter().map(|relation| (relation.oid, relation)).collect();
        let mut catalog = Self { relations, ..Self::default() };
        catalog.sequence_tables =
            query_as::<_, (i64, i64)>(SEQUENCE_TABLES).fetch_all(&mut *connection).await?.into_iter().collect();
        let recognised = unowned::recognise(connection).await?;
        catalog.leave_out(|table| keeps(&table.name, recognised.contains(&table.oid)));
        let known = |oid: &i64| catalog.relations.contains_key(oid);
        for (reader, read) in query_as::<_, (i64, i64)>(READS).fetch_all(&mut *connection).await? {
            if known(&reader) && known(&read) {
                catalog.reads.entry(reader).or_default().insert(read);
            }
        }
        catalog.sequence_defaults = query_as(SEQUENCE_DEFAULTS).fetch_all(connection).await?;
        catalog.sequence_defaults.retain(|default| known(&default.table) && known(&default.sequence));
        Ok(catalog)
    }

    /// Leaves tables out, with their partitions and sequences.
    fn leave_out(&mut self, is_unowned: impl Fn(&Relation) -> bool) {
        let left: Vec<(i64, Qualified)> =
            self.tables().filter(|(_, table)| is_unowned(table)).map(|(oid, table)| (oid, table.name.clone())).collect();
        let roots: BTreeSet<i64> = left.iter().map(|(oid, _)| *oid).collect();
        let of = |oid: i64, relation: &Relation| {
            roots.contains(&relation.root) || self.sequence_tables.get(&oid).is_some_and(|table| roots.contains(table))
        };
        self.relations.retain(|oid, relation| !of(*oid, relation));
        self.unowned = left.into_iter().map(|(_, name)| name).collect();
    }

    /// The relation of this name.
    pub fn find(&self, name: &Qualified) -> Option<(i64, &Relation)> {
        self.relations.iter().find(|(_, relation)| relation.name == *name).map(|(oid, relation)| (*oid, relation))
    }

    /// The tables, without partitions.
    pub fn tables(&self) -> impl Iterator<Item = (i64, &Relation)> {
        let whole = |(oid, relation): &(&i64, &Relation)| relation.kind == RelationKind::Table && relation.root == **oid;
        self.relations.iter().filter(whole).map(|(oid, relation)| (*oid, relation))
    }

    /// The views, materialised or not.
    pub fn views(&self) -> impl Iterator<Item = (i64, &Relation)> {
        let view = |(_, relation): &(&i64, &Relation)| relation.kind == RelationKind::View;
        self.relations.iter().filter(view).map(|(oid, relation)| (*oid, relation))
    }

    /// The tables that a view reads, directly or through other views.
    pub fn tables_read(&self, view: i64) -> BTreeSet<i64> {
        let (mut tables, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![view]);
        while let Some(reader) = left.pop() {
            if !seen.insert(reader) {
                continue;
            }
            for &read in self.reads.get(&reader).into_iter().flatten() {
                match &self.relations[&read] {
                    relation if relation.kind == RelationKind::View => left.push(read),
                    relation => drop(tables.insert(relation.root)),
                }
            }
        }
        tables
    }

    /// The relation's name, for people.
    pub fn shown(&self, relation: i64) -> String {
        self.relations.get(&relation).map_or_else(|| "?".to_owned(), |relation| relation.name.to_string())
    }
}

const RELATIONS: &str = in_user_schemas!(
    r"
    select
        c.oid::int8,
        n.nspname::text as schema,
        c.relname::text as name,
        c.relkind::text as kind,
        coalesce(case when c.relispartition then pg_partition_root(c.oid) end::oid, c.oid)::int8 as root,
        pg_get_userbyid(c.relowner)::text as role,
        array(
            select a.attname::text
            from pg_attribute a
            where a.attrelid = c.oid
              and a.attnum > 0
              and not a.attisdropped
            order by a.attnum
        ) as columns
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
      and c.relpersistence <> 't'
      and not exists (
          select
          from pg_depend d
          where d.classid = 'pg_class'::regclass
            and d.objid = c.oid
            and d.deptype = 'e'
      )",
    ""
);

const READS: &str = r"
    select distinct r.ev_class::int8, d.refobjid::int8
    from pg_rewrite r
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    where d.refclassid = 'pg_class'::regclass
      and d.refobjid <> r.ev_class";

const SEQUENCE_DEFAULTS: &str = r#"
    select f.adrelid::int8 as "table", a.attname::text as "column", d.refobjid::int8 as sequence
    from pg_attrdef f
    join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
    join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
    join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
    where d.refclassid = 'pg_class'::regclass
    order by 1, 2, 3"#;

const SEQUENCE_TABLES: &str = r"
    select d.objid::int8, d.refobjid::int8
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    where d.classid = 'pg_class'::regclass
      and d.refclassid = 'pg_class'::regclass
      and d.deptype in ('a', 'i')";
