//! What a statement uses, as Postgres resolves it. The statement becomes the body of a temporary function, and the catalog
//! then holds its dependencies by column. The plan shows the relations that it writes. Nothing runs, and nothing stays.
//!
//! A parser would have to repeat Postgres' name resolution, with `search_path`, views and quoting.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Error, PgConnection, query, query_as, query_scalar};

use super::catalog::Catalog;
use crate::names::Qualified;

/// A statement's use of one relation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Use {
    /// The columns that it names.
    pub columns: BTreeSet<String>,
    /// `select`, or the rights to what it writes.
    pub rights: BTreeSet<String>,
}

/// Begins a transaction for probes, with the role's search path. The caller rolls it back.
pub async fn begin(connection: &mut PgConnection, role: &str) -> Result<()> {
    query("begin").execute(&mut *connection).await?;
    let path: Option<String> = query_scalar(SEARCH_PATH).bind(role).fetch_one(&mut *connection).await?;
    let path = path.unwrap_or_else(|| r#""$user", public"#.to_owned());
    // Other sessions wait behind a probe that waits for a lock.
    query(SETTINGS).bind(path.replace("$user", role)).execute(connection).await?;
    Ok(())
}

/// What the statement uses, by relation. The inner error is the server's reason why the statement cannot be prepared.
pub async fn probe(
    connection: &mut PgConnection,
    catalog: &Catalog,
    statement: &str,
) -> Result<Result<BTreeMap<i64, Use>, String>> {
    let statement = statement.trim().trim_end_matches(';');
    query("savepoint splitctl_probe").execute(&mut *connection).await?;
    // The extended protocol takes one statement, so a second one behind a semicolon cannot end the transaction.
    let prepared = run(connection, format!("prepare splitctl_probe as {statement}")).await;
    let is_prepared = prepared.is_ok();
    let used = match prepared {
        Ok(()) => used(connection, catalog, statement).await,
        Err(error) => Err(error),
    };
    query("rollback to splitctl_probe").execute(&mut *connection).await?;
    if is_prepared {
        // A rollback leaves prepared statements.
        query("deallocate splitctl_probe").execute(connection).await?;
    }
    match used {
        Err(Error::Database(error)) => Ok(Err(error.message().to_owned())),
        used => Ok(Ok(used?)),
    }
}

async fn used(connection: &mut PgConnection, catalog: &Catalog, statement: &str) -> Result<BTreeMap<i64, Use>, Error> {
    let types: Vec<String> = query_scalar(PARAMETERS).fetch_one(&mut *connection).await?;
    let nulls = vec!["null"; types.len()].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let explain = format!("explain (format json, verbose) execute splitctl_probe {nulls}");
    let plan: Value = query_scalar(AssertSqlSafe(explain)).persistent(false).fetch_one(&mut *connection).await?;
    // The line break ends a comment at the statement's end.
    let signature = format!("pg_temp.splitctl_probe({}) returns void language sql", types.join(", "));
    run(connection, format!("create function {signature} begin atomic {statement}\n; end")).await?;
    let mut used: BTreeMap<i64, Use> = BTreeMap::new();
    let mut found: Vec<(i64, Option<String>)> = query_as(DEPENDENCIES).fetch_all(&mut *connection).await?;
    found.extend(query_as::<_, (i64, Option<String>)>(WHOLE_ROWS).fetch_all(connection).await?);
    for (relation, column) in found {
        if catalog.relations.contains_key(&relation) {
            used.entry(relation).or_default().columns.extend(column);
        }
    }
    read_plan(&plan, catalog, &mut used);
    for relation in used.values_mut() {
        if relation.rights.is_empty() {
            relation.rights.insert("select".to_owned());
        }
    }
    Ok(used)
}

async fn run(connection: &mut PgConnection, statement: String) -> Result<(), Error> {
    query(AssertSqlSafe(statement)).persistent(false).execute(connection).await.map(drop)
}

/// Adds what dependencies lack: the rights to what is written.
fn read_plan(plan: &Value, catalog: &Catalog, used: &mut BTreeMap<i64, Use>) {
    let mut left = vec![plan];
    while let Some(node) = left.pop() {
        match node {
            Value::Array(nodes) => left.extend(nodes),
            Value::Object(fields) => {
                left.extend(fields.values());
                let field = |name: &str| fields.get(name).and_then(Value::as_str);
                let (Some(schema), Some(name)) = (field("Schema"), field("Relation Name")) else { continue };
                let Some((oid, relation)) = catalog.find(&Qualified::new(schema, name)) else { continue };
                let root = if used.contains_key(&oid) { oid } else { relation.root };
                let Some(operation) = field("Operation") else { continue };
                let mut rights = match operation {
                    "Merge" => vec!["insert", "update", "delete"],
                    "Insert" => vec!["insert"],
                    "Update" => vec!["update"],
                    _ => vec!["delete"],
                };
                if field("Conflict Resolution") == Some("UPDATE") {
                    rights.push("update");
                }
                let rights = || rights.iter().map(|&right| right.to_owned());
                match used.get_mut(&root) {
                    Some(used) => used.rights.extend(rights()),
                    // A write through a view: the plan has its table, and the dependencies have the view.
                    None => {
                        let through = used.iter_mut().filter(|(view, _)| catalog.tables_read(**view).contains(&root));
                        through.for_each(|(_, used)| used.rights.extend(rights()));
                    }
                }
            }
            _ => {}
        }
    }
}

const SETTINGS: &str = r"
    select
        set_config('search_path', $1, true),
        set_config('lock_timeout', '2s', true),
        set_config('plan_cache_mode', 'force_generic_plan', true)";

/// The setting for the role in this database, for the role, or for the database; else Postgres' default.
const SEARCH_PATH: &str = r"
    select coalesce(
        (
            select substr(setting, length('search_path=') + 1)
            from pg_db_role_setting s
            cross join lateral unnest(s.setconfig) setting
            where setting like 'search\_path=%'
              and s.setrole in (0, (select r.oid from pg_roles r where r.rolname = $1))
              and s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
            order by s.setrole = 0, s.setdatabase = 0
            limit 1
        ),
        (select boot_val from pg_settings where name = 'search_path')
    )";

const PARAMETERS: &str = r"
    select array(select t.type::text from unnest(p.parameter_types) with ordinality t (type, at) order by t.at)
    from pg_prepared_statements p
    where p.name = 'splitctl_probe'";

const DEPENDENCIES: &str = r"
    select d.refobjid::int8, a.attname::text
    from pg_depend d
    left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and d.refobjsubid <> 0
    where d.classid = 'pg_proc'::regclass
      and d.objid = (
          select p.oid
          from pg_proc p
          where p.proname = 'splitctl_probe'
            and p.pronamespace = pg_my_temp_schema()
      )
      and d.refclassid = 'pg_class'::regclass";

/// All columns of the relations whose rows are used as a whole. They are no dependencies, and the plan may lack them. In the
/// function's tree, such a row is the column 0.
const WHOLE_ROWS: &str = r"
    select t.typrelid::int8, a.attname::text
    from pg_proc p
    cross join lateral regexp_matches(p.prosqlbody::text, ':varattno 0 :vartype (\d+)', 'g') row_type
    join pg_type t on t.oid = row_type[1]::oid
    join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    where p.proname = 'splitctl_probe'
      and p.pronamespace = pg_my_temp_schema()";
