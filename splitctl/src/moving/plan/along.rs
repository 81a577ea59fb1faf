//! What comes along with the tables, what cannot, and who owns it on the target.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::Weight::{Error, Note, Warning};
use super::{Plan, paths, places, there};
use crate::moving::crossings::{self, has_replacement};
use crate::moving::inventory::{Id, Inventory, Object, PartKind};
use crate::moving::{Move, relations};
use crate::names::quote_ident;

/// Judges the inventory.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    check_blocked(plan, the_move, inventory);
    let Move { owner, target, state, .. } = &mut *the_move;
    for object in inventory.wrongly_left_out() {
        let text =
            format!("{}: without it the target would show or take other rows: take it out of `leave`", object.shown());
        plan.add(Error, "along", text);
    }
    for line in inventory.unknown() {
        plan.add(Error, "along", format!("{line}: `leave` names it, and nothing of this name hangs on the tables"));
    }
    for (line, why) in &inventory.not_brought {
        plan.add(Error, "along", format!("{line}: `bring` names it: {why}"));
    }
    for object in inventory.brought_in_vain() {
        let text = format!("{}: `bring` names it, and it uses both sides: take it out of `bring`", object.shown());
        plan.add(Error, "along", text);
    }
    for unread in &inventory.unread {
        let text = format!("{}: {}, so check yourself that the target has all it uses", unread.user, unread.why);
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
    paths::check(plan, the_move, inventory).await?;
    let lacking: BTreeSet<Id> = lacking.iter().map(|object| object.id()).collect();
    check_extensions(plan, the_move, inventory).await?;
    check_functions(plan, the_move, inventory, &lacking).await?;
    there::check(plan, the_move, inventory, &lacking).await?;
    if creates {
        check_roles(plan, the_move, inventory, &lacking).await?;
        places::check(plan, the_move, inventory, &lacking).await?;
    }
    Ok(())
}

/// What uses a table that stays and does not cross by itself.
fn check_blocked(plan: &mut Plan, Move { manifest, owner_name, .. }: &Move, inventory: &Inventory) {
    let leave = |object: &Object| format!("owners.{owner_name}.leave = [{:?}]", object.shown());
    for (object, other) in inventory.blocked() {
        let part = inventory.part(object.id());
        let shown = part.map_or_else(|| object.shown(), |part| part.shown.clone());
        if part.is_some_and(|part| has_replacement(manifest, &part.object())) {
            continue;
        }
        let mut text = format!("{shown}: it uses {other}, which stays, so the target cannot have it: ");
        match part.map(|part| part.kind) {
            Some(PartKind::View) => text += crossings::VIEW_THAT_MOVES,
            _ if inventory.is_brought(object) => text += "take it out of `bring`",
            _ if object.can_be_left() => text += &format!("change it, or leave it behind: `{}`", leave(object)),
            _ => text += "change it",
        }
        plan.add(Error, "along", text);
    }
}

/// The target's server must have each extension, and should have it in the same version.
async fn check_extensions(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { source, target, .. } = the_move;
    for extension in inventory.moving().filter(|object| object.kind == "extension") {
        let (shown, name) = (extension.shown(), &extension.identity);
        let here = query_as::<_, Extension>(EXTENSION).bind(name).fetch_optional(&mut source.connection).await?;
        let there = query_as::<_, Extension>(EXTENSION).bind(name).fetch_optional(&mut target.connection).await?;
        let Some(there) = there else {
            let text = format!("{shown}: the tables need it, and the target's server lacks it: install it there");
            plan.add(Error, "extensions", text);
            continue;
        };
        let Some(here) = here else { continue };
        if let (Some(its), Some(other)) = (&here.schema, &there.schema)
            && its != other
        {
            let move_it = format!("alter extension {name} set schema {}", quote_ident(its));
            let text = format!(
                "{shown}: it is in the schema {its} in the source and in {other} on the target, where no definition would \
                 find it: run `{move_it}` there, or drop it there, and the copy creates it"
            );
            plan.add(Error, "extensions", text);
        }
        if here.version != there.version {
            let text = format!(
                "{shown}: its version is {} in the source and {} on the target: run `alter extension {name} update` on one \
                 side",
                here.version, there.version
            );
            plan.add(Warning, "extensions", text);
        }
    }
    Ok(())
}

/// A function that the target has already is left as it is, so it should be the same.
async fn check_functions(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory, lacking: &BTreeSet<Id>) -> Result<()> {
    let Move { source, target, .. } = the_move;
    let functions =
        inventory.moving().filter(|object| object.class == PG_PROC && !object.is_part && !lacking.contains(&object.id()));
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

#[derive(FromRow)]
struct Extension {
    /// The version that is installed, or the one that would be.
    version: String,
    /// Where it is installed.
    schema: Option<String>,
}

const EXTENSION: &str = r"
    select coalesce(e.extversion, a.default_version) as version, n.nspname::text as schema
    from pg_available_extensions a
    left join pg_extension e on e.extname = a.name
    left join pg_namespace n on n.oid = e.extnamespace
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
