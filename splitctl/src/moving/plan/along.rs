//! What comes along with the tables, what cannot, and who owns it on the target.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Plan;
use super::Weight::{Error, Note, Warning};
use crate::moving::Move;
use crate::moving::inventory::{Id, Inventory, Object};

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
    let lacking = inventory.lacking(&mut target.connection).await?;
    for object in lacking.iter().filter(|object| !object.holds_rows && object.blocked_by.is_none()) {
        plan.add(Note, "along", format!("{}: the copy creates it on the target", object.shown()));
    }
    check_extensions(plan, &lacking, target).await?;
    // Tables that somebody has created on the target bring nothing along.
    if !state.is_open() || state.begun.made_tables {
        let lacking = lacking.iter().map(|object| object.id()).collect();
        check_roles(plan, the_move, &inventory, &lacking).await?;
    }
    Ok(())
}

async fn check_extensions(plan: &mut Plan, lacking: &[&Object], target: &mut crate::moving::Database) -> Result<()> {
    for extension in lacking.iter().filter(|object| object.kind == "extension") {
        let available = query_scalar("select exists (select from pg_available_extensions where quote_ident(name) = $1)");
        if !available.bind(&extension.identity).fetch_one(&mut target.connection).await? {
            let text =
                format!("{}: the tables need it, and the target's server lacks it: install it there", extension.shown());
            plan.add(Error, "extensions", text);
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
