//! The rights on the tables: a switch revokes them on the side that the tables leave, and grants them on the other side.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, query_scalar};

use super::side::Side;
use super::{relations, sequences};
use crate::database::execute;
use crate::manifest::Owner;

/// The grants on the tables, their partitions, views and sequences, with those of their owners: an owner's own rights can be
/// revoked and granted like any others. Superusers need none, so theirs stay, and so do those of splitctl's own role.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Statements that grant them.
    pub grants: Vec<String>,
    /// Statements that revoke them.
    pub revokes: Vec<String>,
    /// The roles that have them.
    pub roles: Vec<String>,
}

/// Leaves out the grants that a server of this version does not know.
pub fn known_to(version: i32, mut grants: Vec<String>) -> Vec<String> {
    grants.retain(|grant| version >= 17 || !grant.contains("grant MAINTAIN"));
    grants
}

/// The rights that a switch gives on the side that it opens, as statements. Its intent keeps them in the journal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Those of the source before it was closed: a rollback grants exactly these. `None` before the first cutover, and in a
    /// move that an older release has switched.
    pub source: Option<Vec<String>>,
    /// Those that somebody granted on the target.
    pub by_hand: Vec<String>,
}

impl Kept {
    /// What to keep for a switch to this side, from the grants on the side that it closes and on the one that it opens.
    pub fn for_switch(&self, to: Side, closing: &[String], opening: &[String]) -> Self {
        let (source, on_target) = match to {
            Side::Target => (closing.to_vec(), opening),
            // The older release left the owner's rights in the source, and the target had the others.
            Side::Source => (self.source.clone().unwrap_or_else(|| join(closing, opening)), closing),
        };
        // A killed run may have opened the target with the rights of the source.
        let from_source = |grant: &&String| source.contains(grant) || self.source.iter().flatten().any(|one| one == *grant);
        let by_hand: Vec<String> = on_target.iter().filter(|grant| !from_source(grant)).cloned().collect();
        let by_hand = join(&self.by_hand, &by_hand);
        Self { source: Some(source), by_hand }
    }

    /// The grants that open this side.
    pub fn opening(&self, side: Side) -> Vec<String> {
        let source = self.source.as_deref().unwrap_or_default();
        match side {
            Side::Source => source.to_vec(),
            Side::Target => join(source, &self.by_hand),
        }
    }
}

fn join(first: &[String], second: &[String]) -> Vec<String> {
    first.iter().chain(second.iter().filter(|grant| !first.contains(grant))).cloned().collect()
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

/// Grants of an owner come before those of roles that it let grant. An owner with all rights has them in one statement,
/// since "all" depends on the server's version. Without a superuser, splitctl's role has the owner's rights by
/// membership, so it gets its own before they are revoked. Inserts need no right on the sequence of an identity column,
/// and its name may differ between the sides, so the owner's rights on it stay.
const GRANTED: &str = r#"
    with relation as (
        select
            c.oid,
            c.relowner,
            format('%s %I.%I', case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname) as object,
            coalesce(c.relacl, d.acl) as acl,
            coalesce(c.relacl, d.acl) @> d.acl[1] as is_whole
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (
            select exists (
                select
                from pg_depend d
                where d.classid = 'pg_class'::regclass
                  and d.objid = c.oid
                  and d.deptype = 'i'
            ) as is_identity
        ) i
        cross join lateral acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner) d (acl)
        where c.oid = any ($1)
          and not (c.relkind = 'S' and c.relacl is null and i.is_identity)
    ),
    granted as (
        select
            r.oid,
            null::name as attname,
            a.grantor,
            a.grantee,
            case when r.is_whole and a.grantee = r.relowner and a.grantor = r.relowner then 'ALL' else a.privilege_type end
                as privilege_type,
            bool_or(a.is_grantable) as is_grantable
        from relation r
        cross join lateral aclexplode(r.acl) a
        group by 1, 2, 3, 4, 5
        union all
        select t.attrelid, t.attname, a.grantor, a.grantee, a.privilege_type, a.is_grantable
        from pg_attribute t
        cross join lateral aclexplode(t.attacl) a
        where t.attrelid = any ($1)
          and t.attnum > 0
          and not t.attisdropped
    )
    select
        concat(
            case when g.grantor <> r.relowner then format('set local role %I; ', pg_get_userbyid(g.grantor)) end,
            format(
                'grant %s%s on %s to %s%s',
                g.privilege_type,
                case when g.attname is not null then format(' (%I)', g.attname) else '' end,
                r.object,
                e.grantee,
                case when g.is_grantable and g.grantee <> r.relowner then ' with grant option' else '' end
            ),
            case when g.grantor <> r.relowner then '; reset role' end
        ) as give,
        concat(
            case
                when g.grantee = r.relowner and not m.rolsuper then format('grant all on %s to %I; ', r.object, m.rolname)
            end,
            format('revoke all on %s from %s cascade', r.object, e.grantee)
        ) as take,
        case when g.grantee <> 0 then pg_get_userbyid(g.grantee)::text end as role
    from granted g
    join relation r on r.oid = g.oid
    join pg_roles m on m.rolname = current_user
    left join pg_roles s on s.oid = g.grantee
    cross join lateral (
        select case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as grantee
    ) e
    where g.grantee <> m.oid
      and not coalesce(s.rolsuper, false)
    order by g.grantor <> r.relowner, give"#;

const ON_SCHEMAS: &str = r"
    select distinct format(
        'grant %s on schema %I to %s',
        a.privilege_type,
        n.nspname,
        case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    where c.oid = any ($1)
      and a.privilege_type = 'USAGE'
      and (a.grantee = 0 or pg_get_userbyid(a.grantee)::text = any ($2))
    order by 1";
