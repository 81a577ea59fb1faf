//! The roles that the application's role is a member of, at any depth: it may have its rights by one of them.

use anyhow::Result;
use sqlx::{FromRow, query_as};

use super::Plan;
use super::Weight::{Error, Warning};
use crate::manifest::Owner;
use crate::moving::{Database, Move, Side};
use crate::names::quote_ident;

/// Compares both sides. `users` are the roles that have rights on what moves.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, users: &[String]) -> Result<()> {
    let Move { owner, source, target, .. } = the_move;
    let here = read(source, &owner.role, users).await?;
    let there = read(target, Side::Target.role_of(owner), &[]).await?;
    for membership in here.iter().map(|membership| membership.on_target(owner)) {
        let found = there.iter().find(|other| membership.is_of_the_same(other));
        for lacking in membership.lacking(found) {
            let weight = if membership.gives_rights { Error } else { Warning };
            let why = if membership.gives_rights { ", and has rights on the tables by it" } else { "" };
            let text = format!(
                "{}: in the source it is a member of {}{why}; on the target it {lacking}: run `{}` there",
                membership.member,
                membership.group,
                membership.granting(target.version)
            );
            plan.add(weight, "roles", text);
        }
        for more in found.map_or_else(Vec::new, |found| found.exceeding(&membership)) {
            let text = format!(
                "{}: in the source it is a member of {}; on the target it also {more}: run `{}` there, unless the \
                 application needs that",
                membership.member,
                membership.group,
                membership.revoking(more)
            );
            plan.add(Warning, "roles", text);
        }
    }
    for membership in there.iter().filter(|other| !here.iter().any(|one| one.on_target(owner).is_of_the_same(other))) {
        let (member, group) = (&membership.member, &membership.group);
        let text = format!(
            "{member}: on the target it is a member of {group}, and in the source it is not: \
             `revoke {} from {}` there, unless the application needs that",
            quote_ident(group),
            quote_ident(member)
        );
        plan.add(Warning, "roles", text);
    }
    Ok(())
}

/// What makes a member use the rights of its role. From Postgres 16 on, whoever creates a role is a member of it that only
/// gives the role to others.
pub(super) fn uses(version: i32) -> &'static str {
    if version >= 16 { "usage, set" } else { "member" }
}

const INHERITS: &str = "inherits its rights";
const SETS: &str = "may set that role";
const GRANTS: &str = "may let others be members";

/// A membership of the role, or of a role that it is a member of.
#[derive(Debug, Clone, FromRow)]
struct Membership {
    member: String,
    group: String,
    inherits: bool,
    may_set: bool,
    may_grant: bool,
    /// Whether a role that this one leads to has rights on the tables.
    gives_rights: bool,
}

impl Membership {
    fn on_target(&self, owner: &Owner) -> Self {
        let [member, group] = [&self.member, &self.group].map(|role| owner.on_target(role).to_owned());
        Self { member, group, ..self.clone() }
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.member, &self.group) == (&other.member, &other.group)
    }

    /// How the membership on the target gives less.
    fn lacking(&self, there: Option<&Self>) -> Vec<&'static str> {
        let Some(there) = there else { return vec!["is not"] };
        let lesser = [
            (self.inherits && !there.inherits, "does not inherit its rights"),
            (self.may_set && !there.may_set, "may not set that role"),
            (self.may_grant && !there.may_grant, "may not let others be members"),
        ];
        lesser.into_iter().filter(|(is_lesser, _)| *is_lesser).map(|(_, what)| what).collect()
    }

    /// How this one, on the target, gives more.
    fn exceeding(&self, here: &Self) -> Vec<&'static str> {
        let greater = [
            (self.inherits && !here.inherits, INHERITS),
            (self.may_set && !here.may_set, SETS),
            (self.may_grant && !here.may_grant, GRANTS),
        ];
        greater.into_iter().filter(|(is_greater, _)| *is_greater).map(|(_, what)| what).collect()
    }

    /// The statement that takes one of these from a membership.
    fn revoking(&self, what: &str) -> String {
        let option = match what {
            INHERITS => "inherit",
            SETS => "set",
            _ => "admin",
        };
        format!("revoke {option} option for {} from {}", quote_ident(&self.group), quote_ident(&self.member))
    }

    fn granting(&self, version: i32) -> String {
        let Self { inherits, may_set, may_grant, .. } = self;
        let options = match version {
            16.. => format!(" with inherit {inherits}, set {may_set}, admin {may_grant}"),
            _ if *may_grant => " with admin option".to_owned(),
            _ => String::new(),
        };
        format!("grant {} to {}{options}", quote_ident(&self.group), quote_ident(&self.member))
    }
}

async fn read(database: &mut Database, role: &str, users: &[String]) -> Result<Vec<Membership>, sqlx::Error> {
    let memberships = query_as(MEMBERSHIPS).bind(role).bind(users).bind(uses(database.version));
    memberships.fetch_all(&mut database.connection).await
}

/// From Postgres 16 on a membership has options of its own, in columns that an older server lacks. Several grantors may have
/// given the same one.
const MEMBERSHIPS: &str = r"
    with recursive reached (role) as (
        select oid from pg_roles where rolname = $1
        union
        select m.roleid
        from reached r
        join pg_auth_members m on m.member = r.role
    )
    select
        m.rolname::text as member,
        g.rolname::text as group,
        bool_or(coalesce((to_jsonb(a) ->> 'inherit_option')::boolean, m.rolinherit)) as inherits,
        bool_or(coalesce((to_jsonb(a) ->> 'set_option')::boolean, true)) as may_set,
        bool_or(a.admin_option) as may_grant,
        bool_or(exists (
            select
            from pg_roles u
            where u.rolname = any ($2)
              and pg_has_role(g.oid, u.oid, $3)
              and not g.rolsuper
              and (
                  coalesce((to_jsonb(a) ->> 'inherit_option')::boolean, true)
                  or (to_jsonb(a) ->> 'set_option')::boolean
              )
        )) as gives_rights
    from reached r
    join pg_auth_members a on a.member = r.role
    join pg_roles m on m.oid = a.member
    join pg_roles g on g.oid = a.roleid
    group by m.rolname, g.rolname
    order by 1, 2";
