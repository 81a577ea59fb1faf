//! The rights on the tables: a switch revokes them on the side that the tables leave, and grants them on the other side.

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_scalar};

use super::{relations, sequences};
use crate::database::execute;
use crate::manifest::Owner;

/// The grants on the tables, their partitions, views and sequences. The grants of the relations' owner and of splitctl's own
/// role are not among them.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Statements that grant them.
    pub grants: Vec<String>,
    /// Statements that revoke them.
    pub revokes: Vec<String>,
    /// The roles that have them.
    pub roles: Vec<String>,
}

impl Rights {
    /// Leaves out the rights that a server of this version does not know.
    pub fn known_to(mut self, version: i32) -> Self {
        self.grants.retain(|grant| version >= 17 || !grant.starts_with("grant MAINTAIN"));
        self
    }
}

/// Reads the rights.
pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Rights> {
    let mut all = owner.relations();
    all.extend(sequences::list(connection, &all).await?);
    let mut rights = Rights::default();
    for granted in relations::select::<Granted>(connection, GRANTED, &all).await? {
        rights.grants.push(granted.give);
        if !rights.revokes.contains(&granted.take) {
            rights.revokes.push(granted.take);
        }
        rights.roles.extend(granted.role.filter(|role| !rights.roles.contains(role)));
    }
    // The schemas' rights are granted on the other side and never revoked here.
    let oids = relations::oids(connection, &owner.relations()).await?;
    let schemas = query_scalar(ON_SCHEMAS).bind(oids).bind(&rights.roles).fetch_all(connection).await?;
    rights.grants.extend::<Vec<String>>(schemas);
    Ok(rights)
}

/// Revokes all of them, and returns what they were.
pub async fn revoke(connection: &mut PgConnection, owner: &Owner) -> Result<Rights> {
    let rights = read(connection, owner).await?;
    if !rights.revokes.is_empty() {
        execute(connection, rights.revokes.join("; ")).await?;
    }
    Ok(rights)
}

#[derive(FromRow)]
struct Granted {
    give: String,
    take: String,
    role: Option<String>,
}

const GRANTED: &str = r"
    with granted as (
        select c.oid, c.relowner, null::name as attname, a.grantee, a.privilege_type, a.is_grantable
        from pg_class c
        cross join lateral aclexplode(c.relacl) a
        where c.oid = any ($1)
        union all
        select c.oid, c.relowner, t.attname, a.grantee, a.privilege_type, a.is_grantable
        from pg_class c
        join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
        cross join lateral aclexplode(t.attacl) a
        where c.oid = any ($1)
    )
    select
        format(
            'grant %s%s on %s to %s%s',
            g.privilege_type,
            case when g.attname is not null then format(' (%I)', g.attname) else '' end,
            o.object,
            o.grantee,
            case when g.is_grantable then ' with grant option' else '' end
        ) as give,
        format('revoke all on %s from %s cascade', o.object, o.grantee) as take,
        case when g.grantee <> 0 then pg_get_userbyid(g.grantee)::text end as role
    from granted g
    join pg_class c on c.oid = g.oid
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (
        select
            format('%s %I.%I', case when c.relkind = 'S' then 'sequence' else 'table' end, n.nspname, c.relname) as object,
            case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as grantee
    ) o
    where g.grantee <> g.relowner
      and g.grantee <> (select r.oid from pg_roles r where r.rolname = current_user)
    order by 1";

const ON_SCHEMAS: &str = r"
    select distinct format(
        'grant %s on schema %I to %s',
        a.privilege_type,
        n.nspname,
        case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral aclexplode(n.nspacl) a
    where c.oid = any ($1)
      and a.privilege_type = 'USAGE'
      and (a.grantee = 0 or pg_get_userbyid(a.grantee)::text = any ($2))
    order by 1";
