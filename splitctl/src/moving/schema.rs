//! The tables' definitions, taken to the target by `pg_dump`, which knows every kind of object there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tokio::process::Command;

use super::relations::oids;
use super::side::Side;
use super::{fence, sequences};
use crate::database::{connect, execute};
use crate::manifest::Owner;
use crate::names::Qualified;

/// Where packages put the client programs besides `PATH`.
const PACKAGES: &str = "/usr/lib/postgresql";

/// What makes the tables on the target, in two parts.
#[derive(Debug, Default)]
pub struct Definitions {
    /// Schemas, extensions, types and functions that the tables need and the target lacks.
    pub needed: String,
    /// Tables, sequences, keys and indexes, and the owner's views.
    pub tables: String,
    /// Foreign keys among the tables, and triggers: once the rows are there.
    pub rules: String,
}

/// Finds a `pg_dump` that is new enough for the server.
///
/// # Errors
/// Where it was looked for.
pub async fn find_pg_dump(version: i32) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("POSTGRES_BIN_DIR").map(PathBuf::from).into_iter().collect();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let packages = std::fs::read_dir(PACKAGES).into_iter().flatten().flatten();
    let mut packages: Vec<PathBuf> = packages.map(|entry| entry.path().join("bin")).collect();
    packages.sort();
    folders.extend(packages.into_iter().rev());
    for program in folders.iter().map(|folder| folder.join("pg_dump")).filter(|program| program.is_file()) {
        let Ok(output) = Command::new(&program).arg("--version").output().await else { continue };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = said.split_whitespace().find_map(|word| word.split('.').next()?.parse::<i32>().ok());
        if major.is_some_and(|major| major >= version) {
            return Ok(program);
        }
    }
    bail!(
        "no pg_dump of version {version} or newer was found in POSTGRES_BIN_DIR, PATH and {PACKAGES}: install Postgres' client programs"
    )
}

/// Dumps what the target needs.
pub async fn dump(source: &mut Side, target: &mut Side, owner: &Owner) -> Result<Definitions> {
    let pg_dump = find_pg_dump(source.version).await?;
    let folder = tempfile::tempdir()?;
    let needed = needed(&mut source.connection, &mut target.connection, owner).await?;
    let mut definitions = Definitions::default();
    if !needed.is_empty() {
        let archive = folder.path().join("needed");
        // Without any table: none is locked for it.
        dump_archive(&pg_dump, &source.url, &archive, &["--exclude-table=*.*".to_owned()]).await?;
        let chosen = contents(&pg_dump, &archive).await?.into_iter().filter(|entry| needed.contains(&entry.object));
        definitions.needed = statements(&pg_dump, &archive, chosen, target.version).await?;
    }
    let archive = folder.path().join("tables");
    let mut relations = fence::for_each(&mut source.connection, &owner.tables, "--table={}").await?;
    relations.extend(owner.views.iter().map(|view| format!("--table={}", view.sql())));
    let sequences = sequences::of(&mut source.connection, &owner.tables).await?;
    relations.extend(sequences.iter().map(|sequence| format!("--table={}", sequence.sql())));
    dump_archive(&pg_dump, &source.url, &archive, &relations).await?;
    let rules = rules(&mut source.connection, &owner.tables).await?;
    let (mut of_tables, mut of_rules) = (Vec::new(), Vec::new());
    for entry in contents(&pg_dump, &archive).await? {
        match rules.iter().find(|(object, _)| *object == entry.object) {
            // Foreign keys to other owners' tables, and our own triggers, stay where they are.
            Some((_, false)) => {}
            Some((_, true)) => of_rules.push(entry),
            None => of_tables.push(entry),
        }
    }
    definitions.tables = statements(&pg_dump, &archive, of_tables, target.version).await?;
    definitions.rules = statements(&pg_dump, &archive, of_rules, target.version).await?;
    Ok(definitions)
}

/// An object of the catalog: class and oid.
type Object = (i64, i64);

/// A line of an archive's table of contents.
struct Entry {
    object: Object,
    line: String,
}

async fn dump_archive(pg_dump: &Path, url: &str, archive: &Path, choice: &[String]) -> Result<()> {
    let mut command = Command::new(pg_dump);
    command.args(["--schema-only", "--format=custom", "--no-owner", "--no-privileges", "--no-publications"]);
    command.args(["--no-subscriptions", "--no-security-labels", "--no-tablespaces", "--lock-wait-timeout=10s"]);
    command.arg("--file").arg(archive).args(choice);
    // Arguments show to everybody on the machine: the password goes by the environment.
    let mut url = url::Url::parse(url)?;
    if let Some(password) = url.password() {
        command.env("PGPASSWORD", percent_decoded(password));
        let _ = url.set_password(None);
    }
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if let Some((_, password)) = parameters.iter().find(|(name, _)| name == "password") {
        command.env("PGPASSWORD", password);
        url.query_pairs_mut().clear().extend_pairs(parameters.iter().filter(|(name, _)| name != "password"));
    }
    command.arg("--dbname").arg(url.as_str());
    succeed(command.stdin(Stdio::null()).output().await?, "pg_dump").map(drop)
}

/// A URL's password as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let code = (first == b'%').then(|| others.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = &others[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn succeed(output: Output, program: &str) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
}

fn restore(pg_dump: &Path) -> Command {
    let mut command = Command::new(pg_dump.with_file_name("pg_restore"));
    command.stdin(Stdio::null());
    command
}

/// `215; 1259 16390 TABLE public users postgres` is the table with oid 16390.
async fn contents(pg_dump: &Path, archive: &Path) -> Result<Vec<Entry>> {
    let listed = succeed(restore(pg_dump).arg("--list").arg(archive).output().await?, "pg_restore")?;
    let mut entries = Vec::new();
    for line in String::from_utf8_lossy(&listed).lines().filter(|line| !line.starts_with(';')) {
        let mut words = line.split_whitespace().skip(1).map_while(|word| word.parse::<i64>().ok());
        if let (Some(class), Some(oid)) = (words.next(), words.next()) {
            entries.push(Entry { object: (class, oid), line: line.to_owned() });
        }
    }
    Ok(entries)
}

/// The statements of some entries.
async fn statements(
    pg_dump: &Path,
    archive: &Path,
    chosen: impl IntoIterator<Item = Entry>,
    version: i32,
) -> Result<String> {
    let lines: Vec<String> = chosen.into_iter().map(|entry| entry.line).collect();
    if lines.is_empty() {
        return Ok(String::new());
    }
    let list = archive.with_extension("list");
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let mut command = restore(pg_dump);
    command.args(["--no-owner", "--no-privileges", "--file=-", "--use-list"]).arg(&list).arg(archive);
    let text = succeed(command.output().await?, "pg_restore")?;
    let text = String::from_utf8(text).context("a definition that is not UTF-8")?;
    let kept = text.lines().filter(|line| {
        // For psql alone; and a setting that older servers do not know.
        let of_psql = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
        let unknown = version < 17 && line.starts_with("SET transaction_timeout");
        !(of_psql || unknown)
    });
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

/// Runs a part on the target: all of it or nothing.
pub async fn apply(target: &Side, statements: &str) -> Result<()> {
    if statements.is_empty() {
        return Ok(());
    }
    // A session of its own: a dump sets what it needs, and does not set it back.
    let mut connection = connect(&target.url).await?;
    execute(&mut connection, format!("begin; {statements}; commit")).await.context("the tables cannot be made on the target")
}

/// Schemas, extensions, types, functions and collations that the tables use and the target does not have.
async fn needed(source: &mut PgConnection, target: &mut PgConnection, owner: &Owner) -> Result<BTreeSet<Object>> {
    let statement = format!(
        "with recursive moving as ({}),
         seeds (classid, objid) as (
             select 'pg_class'::regclass::oid, relid from moving
             union select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join moving m on m.relid = d.adrelid
             union select 'pg_constraint'::regclass, c.oid from pg_constraint c join moving m on m.relid = c.conrelid and c.contype <> 'f'
             union select 'pg_class'::regclass, i.indexrelid from pg_index i join moving m on m.relid = i.indrelid
             union select 'pg_rewrite'::regclass, r.oid from pg_rewrite r join moving m on m.relid = r.ev_class
             union select 'pg_trigger'::regclass, t.oid from pg_trigger t join moving m on m.relid = t.tgrelid
                 join pg_proc p on p.oid = t.tgfoid and p.pronamespace is distinct from to_regnamespace('splitctl')
                 where not t.tgisinternal
         ),
         needed (classid, objid) as (
             select classid, objid from seeds
             union
             select further.classid, further.objid
             from needed n
             cross join lateral (
                 select d.refclassid, d.refobjid
                 from pg_depend d
                 where d.classid = n.classid and d.objid = n.objid
                   and d.refclassid in ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass, 'pg_namespace'::regclass,
                       'pg_extension'::regclass, 'pg_opclass'::regclass, 'pg_operator'::regclass, 'pg_ts_config'::regclass)
                 union all
                 select 'pg_class'::regclass, t.typrelid
                 from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
                 where n.classid = 'pg_type'::regclass and t.oid = n.objid
                 union all
                 select 'pg_constraint'::regclass, c.oid
                 from pg_constraint c
                 where n.classid = 'pg_type'::regclass and c.contypid = n.objid
             ) further (classid, objid)
         )
         select n.classid::bigint, n.objid::bigint, i.type::text, i.identity::text
         from needed n
         cross join lateral pg_identify_object(n.classid, n.objid, 0) i
         where n.objid >= 16384
           and not exists (select from pg_depend e where e.classid = n.classid and e.objid = n.objid and e.deptype = 'e')
           and n.classid in ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass,
             'pg_namespace'::regclass, 'pg_extension'::regclass, 'pg_opclass'::regclass, 'pg_operator'::regclass, 'pg_ts_config'::regclass)",
        oids(&owner.relations())
    );
    let mut lacking = BTreeSet::new();
    for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(source).await? {
        let (class, oid, kind, identity): (i64, i64, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let known = match &*kind {
            "schema" => "select to_regnamespace($1) is not null",
            "extension" => "select exists (select from pg_extension where quote_ident(extname) = $1)",
            "type" => "select to_regtype($1) is not null",
            "function" | "aggregate" | "procedure" => {
                // Not by to_regprocedure, which fails where a type is missing.
                "select exists (select from pg_proc p, pg_identify_object('pg_proc'::regclass, p.oid, 0) i where p.oid >= 16384 and i.identity = $1)"
            }
            "collation" => "select to_regcollation($1) is not null",
            _ => "select $1::text is null",
        };
        if !sqlx::query_scalar::<_, bool>(known).bind(identity).fetch_one(&mut *target).await? {
            lacking.insert((class, oid));
        }
    }
    Ok(lacking)
}

/// Foreign keys and triggers of the tables: whether they go along.
async fn rules(source: &mut PgConnection, tables: &[Qualified]) -> Result<Vec<(Object, bool)>> {
    let statement = format!(
        "with moving as ({})
         select 'pg_constraint'::regclass::oid::bigint, c.oid::bigint, c.confrelid in (select relid from moving)
         from pg_constraint c
         join moving m on m.relid = c.conrelid
         where c.contype = 'f'
         union all
         select 'pg_trigger'::regclass::oid::bigint, t.oid::bigint, p.pronamespace is distinct from to_regnamespace('splitctl')
         from pg_trigger t
         join moving m on m.relid = t.tgrelid
         join pg_proc p on p.oid = t.tgfoid
         where not t.tgisinternal",
        oids(tables)
    );
    let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(source).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

/// How many foreign keys among the tables, and triggers of their own, a side has.
pub async fn count_rules(connection: &mut PgConnection, tables: &[Qualified]) -> Result<usize> {
    Ok(rules(connection, tables).await?.into_iter().filter(|(_, along)| *along).count())
}
