//! What the target must be, and who must be there.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Row};

use super::{Plan, strings};
use crate::manifest::Owner;
use crate::moving::relations::{self, oids};
use crate::moving::{Side, rights};
use crate::names::{Qualified, quote_literal};

/// Looks at the database, its tables and its server.
pub(super) async fn check(plan: &mut Plan, source: &mut Side, target: &mut Side, owner: &Owner, begun: bool) -> Result<()> {
    let setting = "select pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text from pg_database where datname = current_database()";
    let (here, there) = (
        sqlx::query(setting).fetch_one(&mut source.connection).await?,
        sqlx::query(setting).fetch_one(&mut target.connection).await?,
    );
    let texts =
        |row: &sqlx::postgres::PgRow| Ok::<[String; 3], sqlx::Error>([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?]);
    let ([encoding, collate, ctype], [its_encoding, its_collate, its_ctype]) = (texts(&here)?, texts(&there)?);
    if encoding != its_encoding {
        plan.error(
            "encoding",
            format!("the source is {encoding}, the target {its_encoding}: create the target with `encoding '{encoding}'`"),
        );
    }
    if (&collate, &ctype) != (&its_collate, &its_ctype) {
        plan.warn("collation", format!("the source sorts by {collate} ({ctype}), the target by {its_collate} ({its_ctype}): text may come in another order"));
    }
    check_target_tables(plan, source, target, owner, begun).await?;
    let extensions = format!(
        "with moving as ({})
         select distinct e.extname::text
         from moving m
         join pg_attribute a on a.attrelid = m.relid and a.attnum > 0 and not a.attisdropped
         join pg_type t on t.oid = a.atttypid
         join pg_depend d on d.classid = 'pg_type'::regclass and d.objid in (t.oid, t.typelem) and d.deptype = 'e'
         join pg_extension e on e.oid = d.refobjid",
        oids(&owner.tables)
    );
    for extension in strings(&mut source.connection, extensions).await? {
        let available = sqlx::query_scalar("select exists (select from pg_available_extensions where name = $1)");
        if !available.bind(&extension).fetch_one(&mut target.connection).await? {
            plan.error("extensions", format!("a column's type is of the extension {extension}, which the target's server does not have: install it there"));
        }
    }
    Ok(())
}

/// None of the tables, or all of them: of the same shape, and empty.
async fn check_target_tables(
    plan: &mut Plan,
    source: &mut Side,
    target: &mut Side,
    owner: &Owner,
    begun: bool,
) -> Result<()> {
    let there: Vec<Qualified> =
        relations::tables(&mut target.connection, &owner.tables).await?.into_iter().map(|table| table.name).collect();
    if there.is_empty() {
        plan.note("target", "the tables will be made there as they are here");
        return Ok(());
    }
    for table in owner.tables.iter().filter(|table| !there.contains(table)) {
        plan.error("target", format!("the target has some of the tables, but not {table}: make all of them, or none"));
    }
    let (shape, its_shape) = (
        relations::shape(&mut source.connection, &owner.tables).await?,
        relations::shape(&mut target.connection, &owner.tables).await?,
    );
    for line in relations::differences(&shape, &its_shape) {
        plan.error("target", format!("the tables differ (- source, + target): {line}"));
    }
    if begun {
        return Ok(());
    }
    for table in &there {
        if sqlx::query_scalar(AssertSqlSafe(format!("select exists (select from {})", table.sql())))
            .fetch_one(&mut target.connection)
            .await?
        {
            plan.error("target", format!("{table} has rows on the target: empty it, or name another database"));
        }
    }
    Ok(())
}

/// Who reads and writes the tables must be there too, and must be somebody whom the fence can hold.
pub(super) async fn check_roles(plan: &mut Plan, source: &mut Side, target: &mut Side, owner: &Owner) -> Result<()> {
    let rights = rights::read(&mut source.connection, owner).await?;
    let mut roles = rights.roles;
    if !roles.contains(&owner.role) {
        roles.push(owner.role.clone());
    }
    for role in roles {
        let exists = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)");
        if !exists.bind(&role).fetch_one(&mut target.connection).await? {
            plan.error("roles", format!("{role} has rights on the tables, and the target has no such role: `splitctl grants --on {} --apply` makes the owner's, or create it", plan.owner));
        }
    }
    let held = format!(
        "select case when r.rolsuper then 'is a superuser' else 'owns its tables' end
         from pg_roles r
         where r.rolname = {} and (r.rolsuper or exists (select from pg_class c where c.oid in ({}) and pg_has_role(r.oid, c.relowner, 'USAGE')))",
        quote_literal(&owner.role),
        oids(&owner.tables)
    );
    for text in strings(&mut source.connection, held).await? {
        plan.warn(
            "roles",
            format!("{} {text}: after a switch its writes are refused on the side that was left, but its reads are not. Give the service a role of its own (`splitctl grants`), or turn it by hooks", owner.role),
        );
    }
    let known = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)");
    if !known.bind(&owner.role).fetch_one(&mut source.connection).await? {
        plan.error("roles", format!("the source has no role {}: correct the manifest", owner.role));
    }
    Ok(())
}
