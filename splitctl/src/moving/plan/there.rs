//! Objects that the target has already: the copy leaves them as they are, so they must be as in the source. Nobody may gain
//! rights by a move.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Weight::{Error, Warning};
use super::{Plan, weigh_entry};
use crate::manifest::Owner;
use crate::moving::facts::{self, Facts, Right};
use crate::moving::hanging::{self, Change};
use crate::moving::inventory::{Id, Inventory, Object};
use crate::moving::{Move, relations};
use crate::names::quote_ident;

/// Compares their owners, rights and definitions. The rights on tables and sequences are the switch's, which closes them.
pub(super) async fn check(
    plan: &mut Plan,
    the_move: &mut Move,
    inventory: &Inventory,
    lacking: &BTreeSet<Id>,
) -> Result<()> {
    let Move { owner, source, target, state, .. } = the_move;
    if state.is_open() {
        // The copy has created some of them.
        return Ok(());
    }
    if !relations::tables(&mut target.connection, &owner.tables).await?.is_empty() {
        for (name, Change { text, is_harmless }) in hanging::differences(owner, source, target).await? {
            let text = format!("{text}: make both alike, or drop the tables there: `copy` creates them");
            let (weight, text) = match is_harmless {
                true => (Warning, text),
                false => weigh_entry(owner, &format!("there: {name}"), &text),
            };
            plan.add(weight, "there", text);
        }
    }
    let objects = inventory.moving().filter(|object| !object.is_part && !lacking.contains(&object.id()));
    for object in objects {
        let here = facts::read(&mut source.connection, object).await?;
        let there = facts::read(&mut target.connection, object).await?;
        compare(plan, owner, object, &here, &there);
    }
    Ok(())
}

fn compare(plan: &mut Plan, owner: &Owner, object: &Object, here: &Facts, there: &Facts) {
    let (shown, is_schema) = (object.shown(), object.kind == "schema");
    let mut add = |weight, text: String| match weight {
        Error => {
            let (weight, text) = weigh_entry(owner, &format!("there: {shown}"), &text);
            plan.add(weight, "there", text);
        }
        _ => plan.add(weight, "there", text),
    };
    // An extension serves everybody, whoever has installed it.
    if let (Some(its), Some(whose)) = (&there.owner, &here.owner)
        && object.kind != "extension"
        && owner.on_target(whose) != its
    {
        // A role that owns a schema alone has no rights on what is in it.
        let weight = if is_schema { Warning } else { Error };
        let role = quote_ident(owner.on_target(whose));
        let text = format!(
            "{shown}: on the target it belongs to {its}, in the source to {whose}: `alter {shown} owner to {role}` there, \
             or name {its} for {whose} in `owned_by`"
        );
        add(weight, text);
    }
    if here.definition != there.definition {
        add(Error, format!("{shown}: the target has another one of this name: make both equal, or drop that one"));
    }
    let grantable = object.in_grants().unwrap_or_else(|| shown.clone());
    let mapped: BTreeSet<Right> = here.rights().map(|right| right.on_target(owner)).collect();
    let its: BTreeSet<Right> = there.rights().collect();
    for right in its.difference(&mapped) {
        let Right { role, privilege } = right;
        let weight = if is_schema { Warning } else { Error };
        let text = format!(
            "{shown}: on the target {role} has the right {privilege}, and in the source it has not: \
             `revoke {privilege} on {grantable} from {}` there",
            right.grantee()
        );
        add(weight, text);
    }
    // The copy grants the rights on schemas.
    for right in mapped.difference(&its).filter(|_| !is_schema) {
        let Right { role, privilege } = right;
        let text = format!(
            "{shown}: on the target {role} lacks the right {privilege}: `grant {privilege} on {grantable} to {}` there",
            right.grantee()
        );
        add(Warning, text);
    }
}
