//! Tables that no owner has: the copy brings the table alone.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Plan;
use super::Weight::{Error, Warning};
use crate::audit::catalog::Catalog;
use crate::moving::inventory::{Id, Inventory};
use crate::moving::{Move, unowned};
use crate::names::Qualified;

/// Names what the tables need and the copy does not bring, and tables of migration tools that nobody lists.
pub(super) async fn check(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let Move { manifest, owner, source, target, .. } = the_move;
    let brought: BTreeSet<Id> = inventory.moving().map(|object| object.id()).collect();
    for table in unowned::choose(source, target, &manifest.unowned).await? {
        let lacking = Inventory::lacking_for(&mut source.connection, &mut target.connection, &table).await?;
        for object in lacking.iter().filter(|object| !brought.contains(&object.id())) {
            let text = format!(
                "{table}: it needs {}, which the target lacks: create that there, or take the table out of `unowned`",
                object.shown()
            );
            plan.add(Error, "unowned", text);
        }
    }
    let recognised = Catalog::of_move(&mut source.connection, owner).await?.unowned.into_iter();
    let unlisted: Vec<Qualified> =
        recognised.filter(|table| !manifest.unowned.contains(table) && manifest.owner_of(table).is_none()).collect();
    for table in unowned::choose(source, target, &unlisted).await? {
        let text = format!(
            "{table}: it looks like the table of a migration tool, and nobody lists it, so the target will not have it: add \
             it to `unowned`, or to an owner's `tables`"
        );
        plan.add(Warning, "unowned", text);
    }
    Ok(())
}
