//! Rights on schemas, and default privileges: the copy gives them on the target, and an abort takes them back from schemas
//! and roles that were there before.

use anyhow::{Context, Result};
use sqlx::{FromRow, query_as, query_scalar};

use crate::database::{execute, sqlstate};
use crate::manifest::Owner;
use crate::moving::inventory::Inventory;
use crate::moving::side::Database;
use crate::moving::{relations, rights, sequences};
use crate::names::Qualified;

/// Grants the rights on schemas as in the source, to those roles that the target has.
pub async fn grant_schemas(
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
    inventory: &Inventory,
) -> Result<()> {
    for Given { schema, privilege, role } in given(source, owner, inventory).await? {
        let grant = query_scalar::<_, String>(LACKING_GRANT).bind(schema).bind(privilege).bind(role);
        if let Some(grant) = grant.fetch_optional(&mut target.connection).await? {
            execute(&mut target.connection, grant).await?;
        }
    }
    Ok(())
}

/// Reads from a target without the move what the move will change there besides the tables and what it creates: rights on
/// schemas, default privileges, sequences and replica identities. The statements put back what there is now.
pub async fn undoing(
    source: &mut Database,
    target: &mut Database,
    owner: &Owner,
    inventory: &Inventory,
) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    let mut granted = given(source, owner, inventory).await?;
    let users = rights::read_of(&mut source.connection, owner, inventory).await?.roles;
    let oids = relations::oids(&mut source.connection, &owner.relations()).await?;
    let used: Vec<Given> = query_as(USED).bind(oids).bind(users).fetch_all(&mut source.connection).await?;
    granted.extend(used.into_iter().map(|given| given.on_target(owner)));
    for Given { schema, privilege, role } in granted {
        let revoke = query_scalar::<_, String>(NOT_GRANTED).bind(schema).bind(privilege).bind(role);
        statements.extend(revoke.fetch_optional(&mut target.connection).await?);
    }
    let defaults: Vec<i64> =
        inventory.moving().filter(|object| object.class == PG_DEFAULT_ACL).map(|object| object.oid).collect();
    let defaults: Vec<Default> = query_as(DEFAULTS).bind(defaults).fetch_all(&mut source.connection).await?;
    for Default { role, schema, kind, grantees } in defaults {
        let grantees: Vec<&str> = grantees.iter().map(|role| owner.on_target(role)).collect();
        let undo = query_scalar::<_, String>(DEFAULTS_BEFORE).bind(owner.on_target(&role)).bind(schema).bind(kind);
        statements.extend(undo.bind(grantees).fetch_all(&mut target.connection).await?);
    }
    let own: Vec<Qualified> = relations::select(&mut target.connection, OWN_SEQUENCES, &owner.tables).await?;
    statements.extend(sequences::restoring(&mut target.connection, &own).await?);
    statements.extend(relations::select_lines(&mut target.connection, IDENTITIES, &owner.tables).await?);
    statements.dedup();
    Ok(statements)
}

/// Runs the statements of [`undoing`]. A schema or a role that is gone needs none.
pub async fn undo(target: &mut Database, statements: &[String]) -> Result<()> {
    for statement in statements {
        match execute(&mut target.connection, statement.clone()).await {
            Err(error) if !matches!(sqlstate(&error).as_deref(), Some("42704" | "3F000" | "42P01")) => {
                return Err(error).with_context(|| format!("the target cannot be put back as it was: {statement}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The rights that the source gives on the schemas, for the roles of the target.
async fn given(source: &mut Database, owner: &Owner, inventory: &Inventory) -> Result<Vec<Given>> {
    let schemas: Vec<i64> = inventory.moving().filter(|object| object.kind == "schema").map(|object| object.oid).collect();
    let given: Vec<Given> = query_as(GIVEN).bind(schemas).fetch_all(&mut source.connection).await?;
    Ok(given.into_iter().map(|given| given.on_target(owner)).collect())
}

#[derive(FromRow)]
struct Given {
    schema: String,
    privilege: String,
    /// `None` for all roles.
    role: Option<String>,
}

impl Given {
    fn on_target(self, owner: &Owner) -> Self {
        Self { role: self.role.map(|role| owner.on_target(&role).to_owned()), ..self }
    }
}

/// Default privileges of a role for one kind of object.
#[derive(FromRow)]
struct Default {
    role: String,
    schema: Option<String>,
    kind: String,
    grantees: Vec<String>,
}

/// The oid of the catalog's table of default privileges.
const PG_DEFAULT_ACL: i64 = 826;

const GIVEN: &str = r"
    select
        n.nspname::text as schema,
        a.privilege_type as privilege,
        case when a.grantee <> 0 then pg_get_userbyid(a.grantee)::text end as role
    from pg_namespace n
    cross join lateral aclexplode(n.nspacl) a
    left join pg_roles r on r.oid = a.grantee
    where (n.oid = any ($1::int8[]::oid[]) or n.nspname = 'public')
      and a.grantee <> n.nspowner
      and (a.grantee <> 0 or a.privilege_type = 'USAGE')
      and coalesce(r.rolname, '') not like 'splitctl\_%\_applier'
    order by 1, 2, 3";

/// A switch grants the use of the tables' schemas to all roles that have rights on the tables.
const USED: &str = r"
    select distinct n.nspname::text as schema, 'USAGE' as privilege, u.role
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    cross join unnest(array_append($2::text[], null)) u (role)
    where c.oid = any ($1)";

const LACKING_GRANT: &str = r"
    select format('grant %s on schema %I to %s', $2, n.nspname, coalesce(quote_ident($3), 'public'))
    from pg_namespace n
    where n.nspname = $1
      and ($3 is null or exists (select from pg_roles r where r.rolname = $3))
      and not has_schema_privilege(coalesce($3, 'public'), n.oid, $2)";

const NOT_GRANTED: &str = r"
    select format('revoke %s on schema %I from %s', $2, n.nspname, coalesce(quote_ident($3), 'public'))
    from pg_namespace n
    left join pg_roles r on r.rolname = $3
    where n.nspname = $1
      and ($3 is null or r.oid is not null)
      and not exists (
          select
          from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
          where a.grantee = coalesce(r.oid, 0)
            and a.privilege_type = $2
      )";

const DEFAULTS: &str = r#"
    select
        pg_get_userbyid(d.defaclrole)::text as role,
        n.nspname::text as schema,
        d.defaclobjtype::text as kind,
        array(
            select distinct case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end
            from (
                select grantee from aclexplode(d.defaclacl)
                union all
                select grantee
                from aclexplode(acldefault(case d.defaclobjtype when 'S' then 's' else d.defaclobjtype end, d.defaclrole))
                where d.defaclnamespace = 0
            ) a
        ) as grantees
    from pg_default_acl d
    left join pg_namespace n on n.oid = d.defaclnamespace
    where d.oid = any ($1::int8[]::oid[])
    order by 1, 2, 3"#;

/// Takes the default privileges from the grantees of the source, and gives back those that the target has. What a role has
/// in no schema adds to what Postgres gives it, so nothing is given there.
const DEFAULTS_BEFORE: &str = r#"
    with kind as (
        select
            r.oid as role,
            n.oid as schema,
            format(
                'alter default privileges for role %I%s',
                r.rolname,
                case when n.oid is not null then format(' in schema %I', n.nspname) else '' end
            ) as head,
            case $3::text
                when 'r' then 'tables'
                when 'S' then 'sequences'
                when 'f' then 'functions'
                when 'T' then 'types'
                when 'n' then 'schemas'
                else 'large objects'
            end as words,
            coalesce(
                (
                    select d.defaclacl
                    from pg_default_acl d
                    where d.defaclrole = r.oid
                      and d.defaclnamespace = coalesce(n.oid, 0)
                      and d.defaclobjtype::text = $3
                ),
                case when n.oid is null then acldefault((case $3 when 'S' then 's' else $3 end)::"char", r.oid) end
            ) as acl
        from pg_roles r
        left join pg_namespace n on n.nspname = $2
        where r.rolname = $1
          and ($2::text is null or n.oid is not null)
    )
    select s.statement
    from (
        select
            1 as place,
            format(
                '%s revoke all on %s from %s',
                k.head,
                k.words,
                case g.role when 'public' then g.role else quote_ident(g.role) end
            ) as statement
        from kind k
        cross join unnest($4::text[]) g (role)
        where g.role = 'public'
           or exists (select from pg_roles r where r.rolname = g.role)
        union all
        select
            2,
            format(
                '%s grant %s on %s to %s%s',
                k.head,
                a.privilege_type,
                k.words,
                case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                case when a.is_grantable then ' with grant option' else '' end
            )
        from kind k
        cross join lateral aclexplode(k.acl) a
    ) s
    order by s.place, s.statement"#;

/// Nothing but the tables uses these. Others may have drawn numbers from the other sequences.
const OWN_SEQUENCES: &str = r"
    select n.nspname::text as schema, s.relname::text as name
    from pg_depend d
    join pg_class s on s.oid = d.objid and s.relkind = 'S'
    join pg_namespace n on n.oid = s.relnamespace
    where d.classid = 'pg_class'::regclass
      and d.refclassid = 'pg_class'::regclass
      and d.refobjid = any ($1)
      and d.deptype in ('a', 'i')";

/// Replica identities that the end of a move would set to the default.
const IDENTITIES: &str = r"
    select format(
        'alter table %I.%I replica identity %s',
        n.nspname,
        c.relname,
        case c.relreplident when 'f' then 'full' else 'nothing' end
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any ($1)
      and c.relkind in ('r', 'p')
      and c.relreplident in ('f', 'n')
    order by 1";
