//! What comes along with the tables, what cannot, and who owns it on the target.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Note, Warning};
use crate::moving::inventory::{Id, Inventory, Object};
use crate::moving::{Move, relations};

/// Judges the inventory.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move) -> Result<()> {
    let Move { owner, owner_name, source, target, state, .. } = the_move;
    let inventory = Inventory::read(&mut source.connection, owner).await?;
    let leave = |object: &Object| format!("owners.{owner_name}.leave = [{:?}]", object.shown());
    for (object, other) in inventory.blocked() {
        let mut text = format!("{}: it uses {other}, which stays, so the target cannot have it: change it", object.shown());
        if !object.is_binding {
            text += &format!(", or leave it behind: `{}`", leave(object));
        }
        plan.add(Error, "along", text);
    }
    for object in inventory.wrongly_left_out() {
        let text =
            format!("{}: without it the target would show or take other rows: take it out of `leave`", object.shown());
        plan.add(Error, "along", text);
    }
    for line in inventory.unknown() {
        plan.add(Error, "along", format!("{line}: `leave` names it, and nothing of this name hangs on the tables"));
    }
    for unread in &inventory.unread {
        let text = format!("{}: {}, so check yourself that the target has all it uses", unread.function, unread.why);
        plan.add(Warning, "along", text);
    }
    // Tables that somebody has created on the target bring nothing along.
    let creates = match state.is_open() {
        true => state.begun.made_tables,
        false => relations::tables(&mut target.connection, &owner.tables).await?.is_empty(),
    };
    let lacking = inventory.lacking(&mut target.connection).await?;
    for object in lacking.iter().filter(|object| !object.holds_rows && object.blocked_by.is_none()) {
        if creates {
            plan.add(Note, "along", format!("{}: the copy creates it on the target", object.shown()));
        } else {
            let text = format!("{}: the tables need it, and the target lacks it: create it there", object.shown());
            plan.add(Warning, "along", text);
        }
    }
    let lacking: BTreeSet<Id> = lacking.iter().map(|object| object.id()).collect();
    check_extensions(plan, the_move, &inventory).await?;
    check_functions(plan, the_move, &inventory, &lacking).await?;
    if creates {
        check_roles(plan, the_move, &inventory, &lacking).await?;
    }
    Ok(())
}

/// The target's server must have each extension, and should have it in the same version.
async fn check_extensions(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { source, target, .. } = the_move;
    for extension in inventory.moving().filter(|object| object.kind == "extension") {
        let here: Option<String> =
            query_scalar(EXTENSION_VERSION).bind(&extension.identity).fetch_optional(&mut source.connection).await?;
        let there: Option<String> =
            query_scalar(EXTENSION_VERSION).bind(&extension.identity).fetch_optional(&mut target.connection).await?;
        match (here, there) {
            (_, None) => {
                let text =
                    format!("{}: the tables need it, and the target's server lacks it: install it there", extension.shown());
                plan.add(Error, "extensions", text);
            }
            (Some(here), Some(there)) if here != there => {
                let text = format!(
                    "{}: its version is {here} in the source and {there} on the target: run `alter extension {} update` on \
                     one side",
                    extension.shown(),
                    extension.identity
                );
                plan.add(Warning, "extensions", text);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A function that the target has already is left as it is, so it should be the same.
async fn check_functions(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory, lacking: &BTreeSet<Id>) -> Result<()> {
    let Move { source, target, .. } = the_move;
    let functions = inventory.moving().filter(|object| object.class == PG_PROC && !lacking.contains(&object.id()));
    for function in functions {
        let here: Option<String> =
            query_scalar(FUNCTION).bind(&function.identity).fetch_optional(&mut source.connection).await?;
        let there: Option<String> =
            query_scalar(FUNCTION).bind(&function.identity).fetch_optional(&mut target.connection).await?;
        if here != there {
            let text = format!(
                "{}: the target has another function of this name, which the copy leaves as it is: make both equal, or drop \
                 that one",
                function.shown()
            );
            plan.add(Warning, "along", text);
        }
    }
    Ok(())
}

/// A definition names its owner, and the roles that its rights are for.
async fn check_roles(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory, lacking: &BTreeSet<Id>) -> Result<()> {
    let Move { owner, owner_name, source, target, .. } = the_move;
    for role in inventory.roles(&mut source.connection, lacking).await? {
        let name = owner.owned_by.get(&role.name).unwrap_or(&role.name);
        let found: Found = query_as(FOUND).bind(name).fetch_one(&mut target.connection).await?;
        let verb = if role.owns { "owns" } else { "has rights on" };
        if !found.exists {
            let text = format!(
                "{name}: the role {verb} {}, and the target has no such role: create it there, or name another one for it: \
                 `owners.{owner_name}.owned_by = {{ {:?} = \"…\" }}`",
                role.object, role.name
            );
            plan.add(Error, "roles", text);
        } else if role.owns && !found.may_set {
            let text = format!(
                "{name}: the role owns {}, and on the target you may not give it anything: `grant {name} to {}` there",
                role.object, found.operator
            );
            plan.add(Error, "roles", text);
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct Found {
    exists: bool,
    may_set: bool,
    operator: String,
}

/// The oid of the catalog's table of functions.
const PG_PROC: i64 = 1255;

/// The version that is installed, or the one that would be.
const EXTENSION_VERSION: &str = r"
    select coalesce(e.extversion, a.default_version)
    from pg_available_extensions a
    left join pg_extension e on e.extname = a.name
    where quote_ident(a.name) = $1";

const FUNCTION: &str = r"
    select format('%s %s', pg_get_functiondef(p.oid), p.prosecdef)
    from pg_proc p
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    where p.oid >= 16384
      and p.prokind <> 'a'
      and i.identity = $1";

const FOUND: &str = r"
    select
        r.oid is not null as exists,
        coalesce(pg_has_role(
            r.oid,
            case when current_setting('server_version_num')::int4 >= 160000 then 'SET' else 'MEMBER' end
        ), false) as may_set,
        current_user::text as operator
    from (select) one
    left join pg_roles r on r.rolname = $1";
