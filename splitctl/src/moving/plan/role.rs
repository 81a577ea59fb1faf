//! What the roles that use the tables may do besides, and the application's before all.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Warning};
use super::logins::Login;
use crate::manifest::Owner;
use crate::moving::{Database, Move, Side};
use crate::names::{quote_ident, quote_literal};

/// What a database is like for each role.
#[derive(FromRow)]
struct Taking {
    database: String,
    owner: String,
    /// How many connections it takes. All are -1.
    connections: i32,
}

/// What a database says of a role. All is false for a role that it does not have.
#[derive(FromRow)]
struct Role {
    database: String,
    exists: bool,
    logs_in: bool,
    connects: bool,
    creates: bool,
    makes_temporary: bool,
    is_superuser: bool,
    passes_row_security: bool,
    connections: i32,
    expires: String,
    has_expired: bool,
}

/// Compares both sides. The absence of a role is another check's finding.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, logins: &[Login]) -> Result<()> {
    check_database(plan, the_move).await?;
    let Move { owner, source, target, .. } = the_move;
    let names: Vec<&str> = logins.iter().map(|login| login.role.as_str()).collect();
    let names_there: Vec<&str> = names.iter().map(|name| owner.on_target(name)).collect();
    let here: Vec<Role> = query_as(ROLES).bind(names).fetch_all(&mut source.connection).await?;
    let there: Vec<Role> = query_as(ROLES).bind(&names_there).fetch_all(&mut target.connection).await?;
    let roles = logins.iter().zip(names_there).zip(here.iter().zip(&there));
    let mut found = (Vec::new(), Vec::new());
    for ((login, name), (here, there)) in roles.filter(|(_, (_, there))| there.exists) {
        found.0.push(login.role.as_str());
        found.1.push(name);
        let role = quote_ident(name);
        for text in differences(name, forbidding(&role, here, there)) {
            let (weight, text) = login.weigh(owner, text);
            plan.add(weight, "roles", text);
        }
        if login.is_application {
            for text in differences(name, lesser(&role, here, there)) {
                plan.add(Warning, "roles", text);
            }
        }
    }
    if target.superuser && source.superuser {
        check_passwords(plan, found, source, target).await?;
    }
    check_schemas(plan, owner, source, target).await
}

/// Compares what holds for the database and each role.
async fn check_database(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    let here: Taking = query_as(DATABASE).fetch_one(&mut source.connection).await?;
    let there: Taking = query_as(DATABASE).fetch_one(&mut target.connection).await?;
    let database = quote_ident(&there.database);
    let its_owner = owner.on_target(&here.owner);
    if its_owner != there.owner {
        let text = format!(
            "{database}: the target's database belongs to {}, the source's to {its_owner}: \
             `alter database {database} owner to {}` if that role creates schemas or extensions",
            there.owner,
            quote_ident(its_owner)
        );
        plan.add(Warning, "database", text);
    }
    if here.connections != there.connections {
        let (weight, takes) = match there.connections {
            0 => (Error, "no connection"),
            _ => (Warning, "another number of connections than the source's"),
        };
        let text = format!(
            "{database}: the target's database takes {takes}: run `alter database {database} connection limit {}` there",
            here.connections
        );
        plan.add(weight, "database", text);
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

/// The texts of those that there are.
fn differences(name: &str, all: Vec<Difference>) -> impl Iterator<Item = String> {
    let differing = all.into_iter().filter(|(differs, ..)| *differs);
    differing.map(move |(_, what, statement)| format!("{name}: {what}: run `{statement}` on the target"))
}

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

/// Compares these pairs of roles, which exist.
async fn check_passwords(
    plan: &mut Plan,
    (here, there): (Vec<&str>, Vec<&str>),
    source: &mut Database,
    target: &mut Database,
) -> Result<()> {
    let its: Vec<Password> = query_as(PASSWORDS).bind(here).fetch_all(&mut source.connection).await?;
    let others: Vec<Password> = query_as(PASSWORDS).bind(&there).fetch_all(&mut target.connection).await?;
    for (name, (its, other)) in there.into_iter().zip(its.iter().zip(&others)) {
        if its.exists && !other.exists {
            let text = format!("{name}: it has no password there: give it the one that the application uses");
            plan.add(Warning, "roles", text);
        }
        if other.is_md5 && other.asks_for_scram {
            let text = format!(
                "{name}: the target keeps its password as an md5 hash, and rules of its pg_hba.conf ask for scram-sha-256: \
                 set the password there again"
            );
            plan.add(Warning, "roles", text);
        }
    }
    Ok(())
}

const DATABASE: &str = r"
    select
        datname::text as database,
        pg_get_userbyid(datdba)::text as owner,
        datconnlimit as connections
    from pg_database
    where datname = current_database()";

/// In the order of the names.
const ROLES: &str = r"
    select
        d.datname::text as database,
        r.oid is not null as exists,
        coalesce(r.rolcanlogin, false) as logs_in,
        coalesce(has_database_privilege(r.oid, d.oid, 'connect'), false) as connects,
        coalesce(has_database_privilege(r.oid, d.oid, 'create'), false) as creates,
        coalesce(has_database_privilege(r.oid, d.oid, 'temporary'), false) as makes_temporary,
        coalesce(r.rolsuper, false) as is_superuser,
        coalesce(r.rolbypassrls, false) as passes_row_security,
        coalesce(r.rolconnlimit, -1) as connections,
        coalesce(r.rolvaliduntil, 'infinity')::text as expires,
        coalesce(r.rolvaliduntil < now(), false) as has_expired
    from unnest($1::text[]) with ordinality n (name, nth)
    join pg_database d on d.datname = current_database()
    left join pg_roles r on r.rolname = n.name
    order by n.nth";

/// In the order of the names.
const PASSWORDS: &str = r"
    select
        a.rolpassword is not null as exists,
        coalesce(a.rolpassword like 'md5%', false) as is_md5,
        exists (select from pg_hba_file_rules h where h.auth_method = 'scram-sha-256') as asks_for_scram
    from unnest($1::text[]) with ordinality n (name, nth)
    join pg_authid a on a.rolname = n.name
    order by n.nth";

/// In a schema that is there, the copy gives PUBLIC no such right. Since Postgres 15 it has it in none by itself.
const OPEN_SCHEMAS: &str = r"
    select distinct n.nspname::text
    from pg_namespace n
    cross join lateral aclexplode(n.nspacl) a
    where n.nspname = any ($1)
      and a.grantee = 0
      and a.privilege_type = 'CREATE'
    order by 1";

const CREATES: &str = r"
    select has_schema_privilege(r.oid, n.oid, 'create')
    from pg_namespace n
    join pg_roles r on r.rolname = $1
    where n.nspname = $2";
