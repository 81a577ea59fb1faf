//! What the application's role may do besides using the tables.

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Warning};
use crate::manifest::Owner;
use crate::moving::{Database, Move, Side};
use crate::names::{quote_ident, quote_literal};

/// What a database says of the role. All is false for a role that it does not have.
#[derive(FromRow)]
struct Role {
    database: String,
    database_owner: String,
    exists: bool,
    logs_in: bool,
    connects: bool,
    creates: bool,
    makes_temporary: bool,
    is_superuser: bool,
    passes_row_security: bool,
    connections: i32,
    /// How many connections the database takes.
    database_connections: i32,
    expires: String,
    has_expired: bool,
}

/// Compares both sides.
pub(super) async fn check(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let here = read_role(&mut source.connection, &owner.role).await?;
    let name = Side::Target.role_of(owner);
    let there = read_role(&mut target.connection, name).await?;
    let (role, database) = (quote_ident(name), quote_ident(&there.database));
    if owner.on_target(&here.database_owner) != there.database_owner {
        let (its, owner) = (&there.database_owner, owner.on_target(&here.database_owner));
        let text = format!(
            "{database}: the target's database belongs to {its}, the source's to {owner}: \
             `alter database {database} owner to {}` if that role creates schemas or extensions",
            quote_ident(owner)
        );
        plan.add(Warning, "database", text);
    }
    // The absence of the role is another check's finding.
    if !here.exists || !there.exists {
        return Ok(());
    }
    for (weight, differences) in [(Error, forbidding(&role, &here, &there)), (Warning, lesser(&role, &here, &there))] {
        for (_, what, statement) in differences.into_iter().filter(|(differs, ..)| *differs) {
            plan.add(weight, "roles", format!("{name}: {what}: run `{statement}` on the target"));
        }
    }
    check_schemas(plan, owner, source, target).await?;
    if target.superuser && source.superuser {
        check_password(plan, &owner.role, name, source, target).await?;
    }
    Ok(())
}

/// Names the schemas in which the role may create objects because every role may.
async fn check_schemas(plan: &mut Plan, owner: &Owner, source: &mut Database, target: &mut Database) -> Result<()> {
    let role = Side::Target.role_of(owner);
    let mut schemas: Vec<String> = owner.relations().into_iter().map(|relation| relation.schema).collect();
    schemas.push("public".to_owned());
    let open: Vec<String> = query_scalar(OPEN_SCHEMAS).bind(schemas).fetch_all(&mut source.connection).await?;
    for schema in open {
        let creates: Option<bool> =
            query_scalar(CREATES).bind(role).bind(&schema).fetch_optional(&mut target.connection).await?;
        // The copy makes a schema that is not there, with all rights.
        if creates == Some(false) {
            let text = format!(
                "{role}: in the source every role may create objects in the schema {schema}, and on the target this one may \
                 not: run `grant create on schema {} to {}` there if the application does",
                quote_ident(&schema),
                quote_ident(role)
            );
            plan.add(Warning, "roles", text);
        }
    }
    Ok(())
}

/// Whether the role differs so, how it differs on the target, and the statement that ends it there.
type Difference = (bool, &'static str, String);

/// Differences that lock the application out, or give it more rights than it has.
fn forbidding(role: &str, here: &Role, there: &Role) -> Vec<Difference> {
    let database = quote_ident(&there.database);
    vec![
        (here.logs_in && !there.logs_in, "it cannot log in there", format!("alter role {role} login")),
        (
            here.connects && !there.connects,
            "it may not connect to the database there",
            format!("grant connect on database {database} to {role}"),
        ),
        (
            here.connections != 0 && there.connections == 0,
            "it may open no connection there",
            format!("alter role {role} connection limit {}", here.connections),
        ),
        (
            here.database_connections != 0 && there.database_connections == 0,
            "the database takes no connection there",
            format!("alter database {database} connection limit {}", here.database_connections),
        ),
        (
            !here.has_expired && there.has_expired,
            "its password has expired there",
            format!("alter role {role} valid until {}", quote_literal(&here.expires)),
        ),
        (!here.is_superuser && there.is_superuser, "it is a superuser there", format!("alter role {role} nosuperuser")),
        (
            !here.passes_row_security && there.passes_row_security,
            "row security does not hold for it there (bypassrls)",
            format!("alter role {role} nobypassrls"),
        ),
    ]
}

/// Differences that some applications do not notice.
fn lesser(role: &str, here: &Role, there: &Role) -> Vec<Difference> {
    let database = quote_ident(&there.database);
    vec![
        (
            here.passes_row_security && !there.passes_row_security,
            "row security holds for it there (no bypassrls)",
            format!("alter role {role} bypassrls"),
        ),
        (
            here.creates && !there.creates,
            "it may not create schemas in the database there",
            format!("grant create on database {database} to {role}"),
        ),
        (
            here.makes_temporary && !there.makes_temporary,
            "it may not create temporary tables there",
            format!("grant temporary on database {database} to {role}"),
        ),
        (
            here.connections != there.connections && there.connections != 0,
            "it may open another number of connections there",
            format!("alter role {role} connection limit {}", here.connections),
        ),
        (
            here.database_connections != there.database_connections && there.database_connections != 0,
            "the database takes another number of connections there",
            format!("alter database {database} connection limit {}", here.database_connections),
        ),
        (
            here.expires != there.expires && !there.has_expired,
            "its password expires at another time there",
            format!("alter role {role} valid until {}", quote_literal(&here.expires)),
        ),
    ]
}

/// What the application logs in with. Only a superuser may read it, and nobody may see it.
#[derive(FromRow)]
struct Password {
    exists: bool,
    is_md5: bool,
    asks_for_scram: bool,
}

async fn check_password(
    plan: &mut Plan,
    here: &str,
    there: &str,
    source: &mut Database,
    target: &mut Database,
) -> Result<()> {
    let its: Option<Password> = query_as(PASSWORD).bind(here).fetch_optional(&mut source.connection).await?;
    let other: Option<Password> = query_as(PASSWORD).bind(there).fetch_optional(&mut target.connection).await?;
    let (Some(its), Some(other)) = (its, other) else { return Ok(()) };
    if its.exists && !other.exists {
        let text = format!("{there}: it has no password there: give it the one that the application uses");
        plan.add(Warning, "roles", text);
    }
    if other.is_md5 && other.asks_for_scram {
        let text = format!(
            "{there}: the target keeps its password as an md5 hash, and rules of its pg_hba.conf ask for scram-sha-256: set \
             the password there again"
        );
        plan.add(Warning, "roles", text);
    }
    Ok(())
}

async fn read_role(connection: &mut PgConnection, role: &str) -> Result<Role, sqlx::Error> {
    query_as(ROLE).bind(role).fetch_one(connection).await
}

const ROLE: &str = r"
    select
        d.datname::text as database,
        pg_get_userbyid(d.datdba)::text as database_owner,
        r.oid is not null as exists,
        coalesce(r.rolcanlogin, false) as logs_in,
        coalesce(has_database_privilege(r.oid, d.oid, 'connect'), false) as connects,
        coalesce(has_database_privilege(r.oid, d.oid, 'create'), false) as creates,
        coalesce(has_database_privilege(r.oid, d.oid, 'temporary'), false) as makes_temporary,
        coalesce(r.rolsuper, false) as is_superuser,
        coalesce(r.rolbypassrls, false) as passes_row_security,
        coalesce(r.rolconnlimit, -1) as connections,
        d.datconnlimit as database_connections,
        coalesce(r.rolvaliduntil, 'infinity')::text as expires,
        coalesce(r.rolvaliduntil < now(), false) as has_expired
    from pg_database d
    left join pg_roles r on r.rolname = $1
    where d.datname = current_database()";

const PASSWORD: &str = r"
    select
        a.rolpassword is not null as exists,
        coalesce(a.rolpassword like 'md5%', false) as is_md5,
        exists (select from pg_hba_file_rules h where h.auth_method = 'scram-sha-256') as asks_for_scram
    from pg_authid a
    where a.rolname = $1";

/// In a schema that is there, the copy gives PUBLIC no such right. Since Postgres 15 it has it in none by itself.
const OPEN_SCHEMAS: &str = r"
    select distinct n.nspname::text
    from pg_namespace n
    cross join lateral aclexplode(n.nspacl) a
    where n.nspname = any ($1)
      and a.grantee = 0
      and a.privilege_type = 'CREATE'
    order by 1";

const CREATES: &str = "select has_schema_privilege($1, oid, 'create') from pg_namespace where nspname = $2";
