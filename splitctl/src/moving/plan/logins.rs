//! The roles that log in and use the tables: the owner's role, those with rights of their own, and members of these.

use anyhow::Result;
use sqlx::{FromRow, query_as};

use super::Weight::{self, Error, Warning};
use super::memberships::uses;
use super::{Plan, weigh_entry};
use crate::manifest::Owner;
use crate::moving::Move;
use crate::names::quote_ident;

/// A role that uses the tables.
#[derive(FromRow)]
pub(super) struct Login {
    /// Its name in the source.
    pub role: String,
    /// The other roles by which it uses them. It is a member of these.
    groups: Vec<String>,
    /// Whether the application logs in as this one: it is the owner's role, or a member of it where that does not log in.
    pub is_application: bool,
}

impl Login {
    /// The weight of what keeps it from using the tables on the target, and the text with what to do about that.
    pub fn weigh(&self, owner: &Owner, text: String) -> (Weight, String) {
        match &self.role {
            _ if !self.is_application => (Warning, text),
            role if *role == owner.role => (Error, text),
            role => weigh_entry(owner, &format!("roles: {role}"), &text),
        }
    }
}

/// What the target says of one that is a member.
#[derive(FromRow)]
struct Found {
    exists: bool,
    uses: bool,
}

/// All of them in the source. `users` are the roles that have rights on what moves.
pub(super) async fn read(Move { owner, source, .. }: &mut Move, users: &[String]) -> Result<Vec<Login>> {
    let logins = query_as(LOGINS).bind(users).bind(&owner.role).bind(uses(source.version));
    Ok(logins.fetch_all(&mut source.connection).await?)
}

/// Compares the memberships with those on the target. Those of the owner's role are compared at any depth elsewhere.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, logins: &[Login]) -> Result<()> {
    let Move { owner, owner_name, target, .. } = the_move;
    let memberships: Vec<(&Login, &String)> =
        logins.iter().flat_map(|login| login.groups.iter().map(move |group| (login, group))).collect();
    let there: (Vec<&str>, Vec<&str>) =
        memberships.iter().map(|(login, group)| (owner.on_target(&login.role), owner.on_target(group))).unzip();
    let found = query_as(FOUND).bind(&there.0).bind(&there.1).bind(uses(target.version));
    let found: Vec<Found> = found.fetch_all(&mut target.connection).await?;
    for (((login, group), found), (role, its_group)) in memberships.iter().zip(found).zip(there.0.iter().zip(&there.1)) {
        let lacks = match found {
            Found { exists: false, .. } => format!(
                "the target has no such role: create it there with its password, or name another one for it in \
                 `owners.{owner_name}.owned_by`"
            ),
            Found { uses: false, .. } => {
                format!("on the target it does not: run `grant {} to {}` there", quote_ident(its_group), quote_ident(role))
            }
            _ => continue,
        };
        let text = format!("{}: in the source it uses the tables as a member of {group}; {lacks}", login.role);
        let (weight, text) = login.weigh(owner, text);
        plan.add(weight, "roles", text);
    }
    Ok(())
}

/// Superusers use everything, so only the owner's role may be one.
const LOGINS: &str = r"
    select
        l.rolname::text as role,
        array_remove(array_agg(
            case when u.rolname <> l.rolname and l.rolname <> $2 then u.rolname::text end order by u.rolname
        ), null) as groups,
        bool_or(l.rolname = $2 or (u.rolname = $2 and not u.rolcanlogin)) as is_application
    from pg_roles u
    join pg_roles l on pg_has_role(l.oid, u.oid, $3)
    where (u.rolname = any ($1) or u.rolname = $2)
      and (
          l.rolname = $2
          or (
              l.rolcanlogin
              and not l.rolsuper
              and l.rolname <> current_user
              and l.rolname not like 'splitctl\_%\_applier'
          )
      )
    group by l.rolname
    order by 1";

const FOUND: &str = r"
    select
        l.oid is not null as exists,
        coalesce(pg_has_role(l.oid, u.oid, $3), false) as uses
    from unnest($1::text[], $2::text[]) with ordinality n (role, its_group, nth)
    left join pg_roles l on l.rolname = n.role
    left join pg_roles u on u.rolname = n.its_group
    order by n.nth";
