//! The rights on the tables: a switch revokes them on the side that the tables leave, and grants them on the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::inventory::Inventory;
use super::side::{Database, Side};
use super::{passing, relations, roles, sequences};
use crate::audit::lexer::{self, Token};
use crate::database::execute;
use crate::manifest::Owner;

/// The grants on the tables, their partitions, views and sequences, with those of their owners: an owner's own rights can be
/// revoked and granted like any others. Superusers need none, so theirs stay, and so do those of splitctl's own role and of
/// the role that applies changes.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Statements that grant them.
    pub grants: Vec<String>,
    /// Statements that revoke them.
    pub revokes: Vec<String>,
    /// The roles that have them.
    pub roles: Vec<String>,
}

/// Leaves out the grants that the server does not know, those to roles that are gone, and those on functions that this side
/// lacks: a role with no rights left can be dropped while the tables live on the other side.
pub async fn known_to(database: &mut Database, mut grants: Vec<String>) -> Result<Vec<String>> {
    grants.retain(|grant| database.version >= 17 || !grant.contains("grant MAINTAIN"));
    let named: Vec<String> = grants.iter().flat_map(|grant| roles::named_in(grant)).collect();
    let gone: Vec<String> = query_scalar(GONE).bind(named).fetch_all(&mut database.connection).await?;
    grants.retain(|grant| !roles::named_in(grant).iter().any(|role| gone.contains(role)));
    let functions: Vec<String> = grants.iter().flat_map(|grant| functions_in(grant)).collect();
    let lacking: Vec<String> = query_scalar(LACKING).bind(functions).fetch_all(&mut database.connection).await?;
    grants.retain(|grant| !functions_in(grant).iter().any(|function| lacking.contains(function)));
    Ok(grants)
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
    pub fn for_switch(&self, owner: &Owner, to: Side, closing: &[String], opening: &[String]) -> Self {
        let (source, on_target) = match to {
            Side::Target => (closing.to_vec(), opening),
            // The older release left the owner's rights in the source, and the target had the others.
            Side::Source => (self.source.clone().unwrap_or_else(|| join(closing, opening)), closing),
        };
        // A killed run may have opened the target with the rights of the source.
        let from_source = on_target_side(owner, source.iter().chain(self.source.iter().flatten()));
        let by_hand: Vec<String> = on_target.iter().filter(|grant| !from_source.contains(grant)).cloned().collect();
        let by_hand = join(&self.by_hand, &by_hand);
        Self { source: Some(source), by_hand }
    }

    /// The grants that open this side.
    pub fn opening(&self, owner: &Owner, side: Side) -> Vec<String> {
        let source = self.source.as_deref().unwrap_or_default();
        match side {
            Side::Source => source.to_vec(),
            Side::Target => join(&on_target_side(owner, source), &self.by_hand),
        }
    }
}

/// The grants for the roles that take the place of the source's on the target.
fn on_target_side<'a>(owner: &Owner, grants: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    grants.into_iter().map(|grant| roles::on_target(grant, &owner.owned_by)).collect()
}

fn join(first: &[String], second: &[String]) -> Vec<String> {
    first.iter().chain(second.iter().filter(|grant| !first.contains(grant))).cloned().collect()
}

/// Reads the rights.
pub async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<Rights> {
    let inventory = Inventory::read(connection, owner).await?;
    read_of(connection, owner, &inventory).await
}

/// Does the same for an inventory of this side that was just read.
pub async fn read_of(connection: &mut PgConnection, owner: &Owner, inventory: &Inventory) -> Result<Rights> {
    let mut all = owner.relations();
    all.extend(sequences::list_of(connection, owner, inventory).await?);
    let mut rights = Rights::default();
    let oids = relations::oids(connection, &all).await?;
    let passing: Vec<i64> = passing::list(connection, inventory).await?.into_iter().map(|function| function.oid).collect();
    let granted = query_as::<_, Granted>(GRANTED).bind(oids).bind(passing);
    for granted in granted.fetch_all(&mut *connection).await? {
        rights.grants.push(granted.give);
        if !rights.revokes.contains(&granted.take) {
            // What a grantor has given is revoked before the right to give it.
            let place = if takes_role(&granted.take) { 0 } else { rights.revokes.len() };
            rights.revokes.insert(place, granted.take);
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
        execute(connection, merged(&rights.revokes).join("; ")).await?;
    }
    Ok(rights)
}

/// Whether a statement is run as another grantor than the owner.
fn takes_role(statement: &str) -> bool {
    statement.starts_with("set local role")
}

/// The same rights in fewer statements, each with many objects and privileges: writers wait for them. Grants come before
/// revokes. What takes another grantor's role stays as it is: revokes come first, and grants last.
pub fn merged(statements: &[String]) -> Vec<String> {
    let (as_others, as_owner): (Vec<&String>, Vec<&String>) = statements.iter().partition(|statement| takes_role(statement));
    let (giving, taking): (Vec<&String>, Vec<&String>) =
        as_others.into_iter().partition(|statement| statement.contains("; grant "));
    let mut objects: BTreeMap<(Around, &str), BTreeSet<&str>> = BTreeMap::new();
    for part in as_owner.iter().flat_map(|statement| lexer::statements(statement)) {
        let Part { around, privilege, object } = Part::of(part.trim());
        objects.entry((around, privilege)).or_default().insert(object);
    }
    let mut privileges: BTreeMap<(Around, bool, BTreeSet<&str>), Vec<&str>> = BTreeMap::new();
    for ((around, privilege), objects) in objects {
        // It stands alone in a statement.
        let is_all = privilege.eq_ignore_ascii_case("all");
        privileges.entry((around, is_all, objects)).or_default().push(privilege);
    }
    let join = |objects: &BTreeSet<&str>| objects.iter().copied().collect::<Vec<_>>().join(", ");
    let merged = privileges.iter().map(|((around, _, objects), privileges)| {
        let Around { verb, kind, tail } = around;
        format!("{verb} {} {kind} {} {tail}", privileges.join(", "), join(objects))
    });
    taking.into_iter().cloned().chain(merged).chain(giving.into_iter().cloned()).collect()
}

/// The functions and procedures that statements grant rights on.
fn functions_in(statements: &str) -> Vec<String> {
    let parts = lexer::statements(statements).into_iter().map(|statement| Part::of(statement.trim()));
    let functions = parts.filter(|part| ["on function", "on procedure"].contains(&part.around.kind));
    functions.map(|part| part.object.to_owned()).collect()
}

/// A grant or revoke, such as `grant SELECT (name) on table public.users to app`.
struct Part<'a> {
    around: Around<'a>,
    /// `SELECT (name)`
    privilege: &'a str,
    /// `public.users`
    object: &'a str,
}

/// What stands around the privilege and the object.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Around<'a> {
    /// `grant`
    verb: &'a str,
    /// `on table`
    kind: &'a str,
    /// `to app`
    tail: &'a str,
}

impl<'a> Part<'a> {
    fn of(statement: &'a str) -> Self {
        let words: Vec<Range<usize>> = lexer::located(statement)
            .filter_map(|(place, token)| matches!(token, Token::Word(_)).then_some(place))
            .collect();
        // A quoted name keeps its quotes here, so it is never taken for a keyword.
        let find = |keywords: &[&str], from: usize| {
            let mut following = words.iter().enumerate().skip(from);
            following.find(|(_, place)| keywords.contains(&&statement[(*place).clone()])).map_or(words.len(), |(at, _)| at)
        };
        let on = find(&["on"], 1);
        let end = find(&["to", "from"], on);
        let begin_of = |word: usize| words.get(word).map_or(statement.len(), |place| place.start);
        let end_of = |word: usize| words.get(word).map_or(statement.len(), |place| place.end);
        let around = Around {
            verb: &statement[..end_of(0)],
            kind: &statement[begin_of(on)..end_of(on + 1)],
            tail: &statement[begin_of(end)..],
        };
        Self {
            around,
            privilege: statement[end_of(0)..begin_of(on)].trim(),
            object: statement[end_of(on + 1)..begin_of(end)].trim(),
        }
    }
}

#[derive(FromRow)]
struct Granted {
    give: String,
    take: String,
    role: Option<String>,
}

/// A role's grants come after those that let it grant. If a grantor has the owner's rights by membership, `cascade` leaves
/// what it has granted, so that is revoked as this grantor: right by right, since for all rights it would be the owner.
///
/// An owner with all rights has them in one statement, since "all" depends on the server's version. Without a superuser,
/// splitctl's role has the owner's rights by membership, so it gets its own before they are revoked. Inserts need no right
/// on the sequence of an identity column, and its name may differ between the sides, so the owner's rights on it stay.
const GRANTED: &str = r#"
    with recursive relation as (
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
        union all
        select
            p.oid,
            p.proowner,
            format(
                '%s %I.%I(%s)',
                case p.prokind when 'p' then 'procedure' else 'function' end,
                n.nspname,
                p.proname,
                (select string_agg(format_type(a.type, null), ', ' order by a.nth)
                 from unnest(p.proargtypes) with ordinality a (type, nth))
            ),
            coalesce(p.proacl, d.acl),
            false
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        cross join lateral acldefault('f', p.proowner) d (acl)
        where p.oid = any ($2::int8[]::oid[])
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
    ),
    grantors (oid, grantor, depth) as (
        select r.oid, r.relowner, 0
        from relation r
        union
        select g.oid, g.grantee, s.depth + 1
        from grantors s
        join granted g on g.oid = s.oid and g.grantor = s.grantor and g.is_grantable and g.grantee <> g.grantor
        where s.depth < (select count(*) from granted)
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
                when b.takes_role then format('set local role %I; ', pg_get_userbyid(g.grantor))
            end,
            format(
                'revoke %s on %s from %s cascade',
                case when b.takes_role then concat(g.privilege_type, ' (' || quote_ident(g.attname) || ')') else 'all' end,
                r.object,
                e.grantee
            ),
            case when b.takes_role then '; reset role' end
        ) as take,
        case when g.grantee <> 0 then pg_get_userbyid(g.grantee)::text end as role
    from granted g
    join relation r on r.oid = g.oid
    join pg_roles m on m.rolname = current_user
    left join pg_roles s on s.oid = g.grantee
    cross join lateral (
        select g.grantor <> r.relowner and g.grantee <> r.relowner and pg_has_role(g.grantor, r.relowner, 'usage')
    ) b (takes_role)
    cross join lateral (
        select case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as grantee
    ) e
    where g.grantee <> m.oid
      and not coalesce(s.rolsuper, false)
      and coalesce(s.rolname, '') not like 'splitctl\_%\_applier'
    order by (select max(o.depth) from grantors o where (o.oid, o.grantor) = (g.oid, g.grantor)), give"#;

const LACKING: &str = "select f.name from unnest($1::text[]) f (name) where to_regprocedure(f.name) is null";

const GONE: &str = "select n.role from unnest($1::text[]) n (role) where n.role not in (select rolname from pg_roles)";

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

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn rights_are_granted_and_revoked_on_many_objects_at_once() {
        let statements = [
            "revoke all on table public.\"on to\" from app cascade",
            "grant all on table public.b to me; revoke all on table public.b from app cascade",
            "grant SELECT on table public.\"on to\" to app",
            "grant INSERT on table public.\"on to\" to app",
            "grant SELECT on table public.b to app",
            "grant INSERT on table public.b to app",
            "grant ALL on table public.b to owner",
            "grant SELECT (\"from\") on table public.b to other with grant option",
            "set local role other; grant SELECT (\"from\") on table public.b to third; reset role",
            "grant USAGE on sequence public.s to app",
            "grant USAGE on schema public to app",
        ];
        let expected = [
            "grant USAGE on schema public to app",
            "grant USAGE on sequence public.s to app",
            "grant INSERT, SELECT on table public.\"on to\", public.b to app",
            "grant all on table public.b to me",
            "grant SELECT (\"from\") on table public.b to other with grant option",
            "grant ALL on table public.b to owner",
            "revoke all on table public.\"on to\", public.b from app cascade",
            "set local role other; grant SELECT (\"from\") on table public.b to third; reset role",
        ];
        let mut merged = merged(&statements.map(str::to_owned));
        let (mut grants, rest): (Vec<_>, Vec<_>) = merged.drain(..).partition(|statement| statement.starts_with("grant"));
        grants.sort();
        let mut sorted: Vec<_> = expected[..6].to_vec();
        sorted.sort_unstable();
        assert_eq!(grants, sorted);
        assert_eq!(rest, expected[6..]);
    }
}
