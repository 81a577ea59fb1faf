//! Who may use the tables: taken from the side that is left, given on the other one.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::relations::{listed, oids};
use crate::database::execute;
use crate::manifest::Owner;

/// Everything but what the owners of the relations, and we ourselves, have: grants on tables, partitions, views and sequences.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Rights {
    /// Statements that give them.
    pub grants: Vec<String>,
    /// Statements that take them.
    pub revokes: Vec<String>,
    /// The roles they are for.
    pub roles: Vec<String>,
}

impl Rights {
    /// Without what a server of this version does not know.
    pub fn understood_by(mut self, version: i32) -> Self {
        self.grants.retain(|grant| version >= 17 || !grant.starts_with("grant MAINTAIN"));
        self
    }
}

/// The rights as they are now.
pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Rights> {
    let moving = oids(&owner.relations());
    let statement = format!(
        "with moving as ({moving}),
         relations as (
             select relid from moving
             union
             select d.objid
             from moving m
             join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = m.relid
                 and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
             join pg_class s on s.oid = d.objid and s.relkind = 'S'
             union
             select s.oid
             from moving m
             join pg_attrdef f on f.adrelid = m.relid
             join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
             join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
         ),
         granted as (
             select c.oid, c.relkind, c.relowner, null::name as attname, a.grantee, a.privilege_type, a.is_grantable
             from relations r
             join pg_class c on c.oid = r.relid
             cross join lateral aclexplode(c.relacl) a
             union all
             select c.oid, c.relkind, c.relowner, t.attname, a.grantee, a.privilege_type, a.is_grantable
             from relations r
             join pg_class c on c.oid = r.relid
             join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
             cross join lateral aclexplode(t.attacl) a
         )
         select
             format('grant %s%s on %s %I.%I to %s%s',
                 g.privilege_type, case when g.attname is not null then format(' (%I)', g.attname) else '' end,
                 case when g.relkind = 'S' then 'sequence' else 'table' end, n.nspname, c.relname,
                 case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
                 case when g.is_grantable then ' with grant option' else '' end),
             format('revoke all on %s %I.%I from %s cascade',
                 case when g.relkind = 'S' then 'sequence' else 'table' end, n.nspname, c.relname,
                 case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end),
             case when g.grantee = 0 then null else pg_get_userbyid(g.grantee)::text end
         from granted g
         join pg_class c on c.oid = g.oid
         join pg_namespace n on n.oid = c.relnamespace
         where g.grantee <> g.relowner
           and g.grantee <> (select r.oid from pg_roles r where r.rolname = current_user)
         order by 1"
    );
    let mut rights = Rights::default();
    for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(&mut *connection).await? {
        let (grant, revoke, role): (String, String, Option<String>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        rights.grants.push(grant);
        if !rights.revokes.contains(&revoke) {
            rights.revokes.push(revoke);
        }
        if let Some(role) = role
            && !rights.roles.contains(&role)
        {
            rights.roles.push(role);
        }
    }
    rights.grants.extend(schema_rights(connection, owner, &rights.roles).await?);
    Ok(rights)
}

/// Takes them all from those who use the tables.
pub async fn take(connection: &mut PgConnection, owner: &Owner) -> Result<Rights> {
    let rights = read(connection, owner).await?;
    if !rights.revokes.is_empty() {
        execute(connection, rights.revokes.join("; ")).await?;
    }
    Ok(rights)
}

/// The rights on the schemas that the relations are in, of those who have rights on the relations. They are given on the other
/// side, and never taken here.
async fn schema_rights(connection: &mut PgConnection, owner: &Owner, roles: &[String]) -> Result<Vec<String>> {
    let statement = format!(
        "select distinct format('grant %s on schema %I to %s', a.privilege_type, n.nspname,
             case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end)
         from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         cross join lateral aclexplode(n.nspacl) a
         where (n.nspname, c.relname) in ({})
           and a.privilege_type = 'USAGE'
           and (a.grantee = 0 or pg_get_userbyid(a.grantee)::text = any($1))
         order by 1",
        listed(&owner.relations())
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).bind(roles).fetch_all(connection).await?)
}
