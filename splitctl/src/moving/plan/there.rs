//! Objects that the target has already: the copy leaves them as they are, so they must be as in the source. Nobody may gain
//! rights by a move.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Weight::{self, Error, Warning};
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
        let is_comparable = source.version == target.version || !WORDED.contains(&object.kind.as_str());
        let differences = compare(owner, object, is_comparable, (&here, &there));
        for (weight, text) in differences.into_iter().chain(compare_rights(owner, object, (&here, &there))) {
            let (weight, text) = match weight {
                Error => weigh_entry(owner, &format!("there: {}", object.shown()), &text),
                _ => (weight, text),
            };
            plan.add(weight, "there", text);
        }
    }
    Ok(())
}

/// Kinds whose definitions another version may write in other words.
const WORDED: [&str; 3] = ["view", "materialized view", "collation"];

fn compare(owner: &Owner, object: &Object, is_comparable: bool, (here, there): (&Facts, &Facts)) -> Vec<(Weight, String)> {
    let (shown, mut differences) = (object.shown(), Vec::new());
    // An extension serves everybody, whoever has installed it.
    if let (Some(its), Some(whose)) = (&there.owner, &here.owner)
        && object.kind != "extension"
        && owner.on_target(whose) != its
    {
        // A role that owns a schema alone has no rights on what is in it.
        let weight = if object.kind == "schema" { Warning } else { Error };
        let role = quote_ident(owner.on_target(whose));
        let text = format!(
            "{shown}: on the target it belongs to {its}, in the source to {whose}: `alter {shown} owner to {role}` there, \
             or name {its} for {whose} in `owned_by`"
        );
        differences.push((weight, text));
    }
    if here.definition != there.definition {
        let (weight, what) = match is_comparable {
            true => (Error, "another one of this name: make both equal"),
            false => (Warning, "one of this name in other words, as another version may write it: compare both"),
        };
        differences.push((weight, format!("{shown}: the target has {what}, or drop that one")));
    }
    differences
}

fn compare_rights(owner: &Owner, object: &Object, (here, there): (&Facts, &Facts)) -> Vec<(Weight, String)> {
    let (shown, is_schema, mut differences) = (object.shown(), object.kind == "schema", Vec::new());
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
        differences.push((weight, text));
    }
    // The copy grants the rights on schemas.
    for right in mapped.difference(&its).filter(|_| !is_schema) {
        let Right { role, privilege } = right;
        let text = format!(
            "{shown}: on the target {role} lacks the right {privilege}: `grant {privilege} on {grantable} to {}` there",
            right.grantee()
        );
        differences.push((Warning, text));
    }
    differences
}
