//! The role that applies changes. The tables' owner decides what runs then: checks, domains, expression indexes, generated
//! columns. None of it must run as a superuser.
//!
//! From Postgres 16 on, a superuser can let a role of few rights own the subscription. The fence has revoked the rights of
//! the tables' owner, so the role has grants of its own. It has the application's rights besides: such code runs with these
//! whenever the application writes. It cannot become the application's role. It must be able to log in, or the server starts
//! no worker for it; with a connection limit of 0 no client can.

use anyhow::{Context, Result};
use sqlx::query_scalar;

use super::objects::Names;
use super::side::Database;
use super::{marker, relations};
use crate::database::{execute, sqlstate};
use crate::manifest::Owner;
use crate::names::{Qualified, quote_ident, quote_literal};

/// Whether such a role applies the changes in this database. If not, it is splitctl's own.
pub fn applies(database: &Database) -> bool {
    database.superuser && database.version >= 16
}

/// Creates the role with its rights, and returns its name. `None` if splitctl's own role applies the changes.
pub async fn prepare(database: &mut Database, names: &Names, owner: &Owner) -> Result<Option<String>> {
    if !applies(database) {
        return Ok(None);
    }
    let name = names.applier();
    let statements = statements(database, &name, names, owner).await?;
    execute(&mut database.connection, format!("begin; {statements}; commit")).await.with_context(|| {
        format!("{name}: the role that applies changes on the {} cannot be created with its rights", database.side)
    })?;
    Ok(Some(name))
}

/// The statement that lets the role pass row security on the target, which has it once the rows are there. Empty if no table
/// has row security, or splitctl's own role applies the changes.
pub async fn passing_row_security(
    source: &mut Database,
    target: &mut Database,
    names: &Names,
    owner: &Owner,
) -> Result<String> {
    let name = names.applier();
    let is_needed = has_row_security(source, owner).await? && applies(target) && exists(target, &name).await?;
    Ok(if is_needed { format!("alter role {} bypassrls", quote_ident(&name)) } else { String::new() })
}

/// Revokes its rights on the side that the tables live on, where nothing is applied.
pub async fn withdraw(database: &mut Database, names: &Names, owner: &Owner) -> Result<()> {
    let name = names.applier();
    if !applies(database) || !exists(database, &name).await? {
        return Ok(());
    }
    let role = quote_ident(&name);
    let rights = rights(database, names, owner).await?;
    let revokes: Vec<String> = rights.iter().map(|(right, on)| format!("revoke {right} on {on} from {role}")).collect();
    Ok(execute(&mut database.connection, format!("begin; {}; commit", revokes.join("; "))).await?)
}

/// Drops the role. In one cluster the other database may still have grants to it; then the last call drops it.
pub async fn drop(database: &mut Database, names: &Names) -> Result<()> {
    let name = names.applier();
    if !exists(database, &name).await? {
        return Ok(());
    }
    let role = quote_ident(&name);
    execute(&mut database.connection, format!("drop owned by {role}")).await?;
    match execute(&mut database.connection, format!("drop role {role}")).await {
        Err(error) if sqlstate(&error).as_deref() != Some("2BP01") => Err(error.into()),
        _ => Ok(()),
    }
}

async fn exists(database: &mut Database, name: &str) -> Result<bool, sqlx::Error> {
    let exists = "select exists (select from pg_roles where rolname = $1)";
    query_scalar(exists).bind(name).fetch_one(&mut database.connection).await
}

async fn statements(database: &mut Database, name: &str, names: &Names, owner: &Owner) -> Result<String> {
    let verb = if exists(database, name).await? { "alter" } else { "create" };
    let rights = rights(database, names, owner).await?;
    let application = database.side.role_of(owner);
    // The server refuses to apply where row security holds for the role.
    let bypass = if has_row_security(database, owner).await? { "bypassrls" } else { "nobypassrls" };
    let connection = &mut database.connection;
    let role = quote_ident(name);
    let mut statements = vec![format!(
        "{verb} role {role} login connection limit 0 nosuperuser nocreatedb nocreaterole noreplication {bypass}"
    )];
    statements.extend(query_scalar::<_, String>(MEMBERSHIP).bind(application).bind(name).fetch_optional(connection).await?);
    statements.extend(rights.iter().map(|(right, on)| format!("grant {right} on {on} to {role}")));
    let settings = SETTINGS.iter().filter(|(_, _, since)| database.version >= *since);
    statements
        .extend(settings.map(|(setting, value, _)| format!("alter role {role} set {setting} = {}", quote_literal(value))));
    Ok(statements.join("; "))
}

async fn has_row_security(Database { connection, .. }: &mut Database, owner: &Owner) -> Result<bool, sqlx::Error> {
    let oids = relations::oids(connection, &owner.tables).await?;
    query_scalar(ROW_SECURITY).bind(oids).fetch_one(connection).await
}

/// Its rights, and the objects that each is on. A worker connects to the database, and an update or a delete first reads the
/// row.
async fn rights(database: &mut Database, names: &Names, owner: &Owner) -> Result<Vec<(&'static str, String)>> {
    let connection = &mut database.connection;
    let tables = relations::with_partitions(connection, &owner.tables).await?;
    let mut schemas: Vec<String> = tables.iter().map(|table| quote_ident(&table.schema)).collect();
    schemas.push("splitctl".to_owned());
    schemas.sort();
    schemas.dedup();
    let its_database: String = query_scalar("select current_database()::text").fetch_one(connection).await?;
    let mut listed: Vec<String> = tables.iter().map(Qualified::sql).collect();
    listed.push(marker::table(names.owner()));
    Ok(vec![
        ("connect", format!("database {}", quote_ident(&its_database))),
        ("usage", format!("schema {}", schemas.join(", "))),
        ("select, insert, update, delete", listed.join(", ")),
    ])
}

/// Settings of a worker's session that the database may have otherwise, with the version that knows them.
const SETTINGS: [(&str, &str, i32); 4] = [
    ("lock_timeout", "0", 16),
    ("statement_timeout", "0", 16),
    ("default_transaction_read_only", "off", 16),
    ("transaction_timeout", "0", 17),
];

const ROW_SECURITY: &str = "select exists (select from pg_class where oid = any ($1) and relrowsecurity)";

/// A superuser's rights are no role's to inherit.
const MEMBERSHIP: &str = r"
    select format('grant %I to %I with inherit true, set false', r.rolname, $2)
    from pg_roles r
    where r.rolname = $1
      and not r.rolsuper";
