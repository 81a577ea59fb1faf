//! The tables' definitions, which `pg_dump` brings to the target.

pub mod pg_dump;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection, query_scalar};

use super::side::Database;
use super::{fence, relations, sequences};
use crate::database::execute;
use crate::manifest::Owner;
use crate::names::Qualified;
use pg_dump::Object;

/// The statements that create the tables on the target.
#[derive(Debug, Default)]
pub struct Definitions {
    /// Schemas, extensions, types and functions that the tables need and the target lacks.
    pub needed: String,
    /// Tables, sequences, keys and indexes, and the owner's views.
    pub tables: String,
    /// Foreign keys among the tables, and triggers. They are created when the rows are there.
    pub rules: String,
}

/// Dumps the definitions from the source.
pub async fn dump(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<Definitions> {
    let program = pg_dump::find(source.version).await?;
    let folder = tempfile::tempdir()?;
    let mut definitions = Definitions::default();
    let lacking = find_lacking(source, target, owner).await?;
    if !lacking.is_empty() {
        let archive = folder.path().join("needed");
        // It dumps no table, so it locks none.
        pg_dump::dump(&program, &source.url, &archive, &["--exclude-table=*.*".to_owned()]).await?;
        let mut chosen = pg_dump::contents(&program, &archive).await?;
        chosen.retain(|entry| lacking.contains(&entry.object));
        definitions.needed = pg_dump::statements(&program, &archive, &chosen, target.version).await?;
    }
    let archive = folder.path().join("tables");
    let mut choice = fence::statements(&mut source.connection, &owner.tables, "--table={}").await?;
    let sequences = sequences::list(&mut source.connection, &owner.tables).await?;
    choice.extend(owner.views.iter().chain(&sequences).map(|relation| format!("--table={}", relation.sql())));
    pg_dump::dump(&program, &source.url, &archive, &choice).await?;
    let rules = list_rules(&mut source.connection, &owner.tables).await?;
    let (mut of_tables, mut of_rules) = (Vec::new(), Vec::new());
    for entry in pg_dump::contents(&program, &archive).await? {
        match rules.iter().find(|rule| rule.object() == entry.object) {
            Some(rule) if rule.moves => of_rules.push(entry),
            // Foreign keys to other owners' tables, and splitctl's triggers, do not move.
            Some(_) => {}
            None => of_tables.push(entry),
        }
    }
    definitions.tables = pg_dump::statements(&program, &archive, &of_tables, target.version).await?;
    definitions.rules = pg_dump::statements(&program, &archive, &of_rules, target.version).await?;
    Ok(definitions)
}

/// Runs one part on the target, in one transaction.
pub async fn apply(target: &Database, statements: &str) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    // A dump changes settings of its session and does not reset them.
    let mut connection = target.connect().await?;
    let applied = execute(&mut connection, format!("begin; {statements}; commit")).await;
    applied.context("the tables cannot be created on the target")
}

/// Whether a side has foreign keys among the tables, or triggers of their own.
pub async fn has_rules(connection: &mut PgConnection, tables: &[Qualified]) -> Result<bool> {
    Ok(list_rules(connection, tables).await?.iter().any(|rule| rule.moves))
}

/// Builds the statements that drop the tables, the owner's views, and the sequences that stand alone and that the tables
/// use.
pub async fn dropping(connection: &mut PgConnection, tables: &[Qualified], views: &[Qualified]) -> Result<String> {
    let mut statements = Vec::new();
    if !views.is_empty() {
        statements.push(format!("drop view if exists {}", relations::list(views)));
    }
    let sequences = sequences::list(connection, tables).await?;
    statements.push(format!("drop table {}", relations::list(tables)));
    if !sequences.is_empty() {
        // A sequence of a column is gone with its table.
        statements.push(format!("drop sequence if exists {}", relations::list(&sequences)));
    }
    Ok(statements.join("; "))
}

#[derive(FromRow)]
struct Needed {
    class: i64,
    oid: i64,
    kind: String,
    identity: String,
}

impl Needed {
    /// The statement that finds an object of the kind by its identity.
    fn lookup(&self) -> &'static str {
        match &*self.kind {
            "schema" => "select to_regnamespace($1) is not null",
            "extension" => "select exists (select from pg_extension where quote_ident(extname) = $1)",
            "type" => "select to_regtype($1) is not null",
            "function" | "aggregate" | "procedure" => HAS_FUNCTION,
            "collation" => "select to_regcollation($1) is not null",
            _ => "select $1::text is null",
        }
    }
}

/// Schemas, extensions, types, functions and collations that the tables use and the target does not have.
async fn find_lacking(source: &mut Database, target: &mut Database, owner: &Owner) -> Result<BTreeSet<Object>> {
    let mut lacking = BTreeSet::new();
    for needed in relations::select::<Needed>(&mut source.connection, NEEDED, &owner.relations()).await? {
        let found: bool = query_scalar(needed.lookup()).bind(&needed.identity).fetch_one(&mut target.connection).await?;
        if !found {
            lacking.insert((needed.class, needed.oid));
        }
    }
    Ok(lacking)
}

/// A foreign key or a trigger of the tables.
#[derive(FromRow)]
struct Rule {
    class: i64,
    oid: i64,
    moves: bool,
}

impl Rule {
    fn object(&self) -> Object {
        (self.class, self.oid)
    }
}

async fn list_rules(connection: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<Rule>, sqlx::Error> {
    relations::select(connection, RULES, tables).await
}

/// `to_regprocedure` fails if a type of the parameters is missing, so it cannot find a function.
const HAS_FUNCTION: &str = r"
    select exists (
        select
        from pg_proc p
        cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
        where p.oid >= 16384
          and i.identity = $1
    )";

/// Follows dependencies from the relations to objects that are not built in and belong to no extension.
const NEEDED: &str = r"
    with recursive
    seeds (classid, objid) as (
        select 'pg_class'::regclass::oid, m.oid from unnest($1) m (oid)
        union
        select 'pg_attrdef'::regclass, d.oid from pg_attrdef d where d.adrelid = any ($1)
        union
        select 'pg_constraint'::regclass, c.oid from pg_constraint c where c.conrelid = any ($1) and c.contype <> 'f'
        union
        select 'pg_class'::regclass, i.indexrelid from pg_index i where i.indrelid = any ($1)
        union
        select 'pg_rewrite'::regclass, r.oid from pg_rewrite r where r.ev_class = any ($1)
        union
        select 'pg_trigger'::regclass, t.oid
        from pg_trigger t
        join pg_proc p on p.oid = t.tgfoid and p.pronamespace is distinct from to_regnamespace('splitctl')
        where t.tgrelid = any ($1)
          and not t.tgisinternal
    ),
    needed (classid, objid) as (
        select classid, objid from seeds
        union
        select further.classid, further.objid
        from needed n
        cross join lateral (
            select d.refclassid, d.refobjid
            from pg_depend d
            where d.classid = n.classid
              and d.objid = n.objid
              and d.refclassid in (
                  'pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass, 'pg_namespace'::regclass,
                  'pg_extension'::regclass, 'pg_opclass'::regclass, 'pg_operator'::regclass, 'pg_ts_config'::regclass
              )
            union all
            select 'pg_class'::regclass, t.typrelid
            from pg_type t
            join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
            where n.classid = 'pg_type'::regclass
              and t.oid = n.objid
            union all
            select 'pg_constraint'::regclass, c.oid
            from pg_constraint c
            where n.classid = 'pg_type'::regclass
              and c.contypid = n.objid
        ) further (classid, objid)
    )
    select n.classid::int8 as class, n.objid::int8 as oid, i.type::text as kind, i.identity::text as identity
    from needed n
    cross join lateral pg_identify_object(n.classid, n.objid, 0) i
    where n.objid >= 16384
      and not exists (
          select
          from pg_depend e
          where e.classid = n.classid
            and e.objid = n.objid
            and e.deptype = 'e'
      )
      and n.classid in (
          'pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass, 'pg_namespace'::regclass,
          'pg_extension'::regclass, 'pg_opclass'::regclass, 'pg_operator'::regclass, 'pg_ts_config'::regclass
      )";

const RULES: &str = r"
    select 'pg_constraint'::regclass::oid::int8 as class, c.oid::int8 as oid, c.confrelid = any ($1) as moves
    from pg_constraint c
    where c.contype = 'f'
      and c.conrelid = any ($1)
    union all
    select
        'pg_trigger'::regclass::oid::int8,
        t.oid::int8,
        p.pronamespace is distinct from to_regnamespace('splitctl')
    from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = any ($1)
      and not t.tgisinternal";
