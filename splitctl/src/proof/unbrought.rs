//! What only statements of the application use does not come along by itself: the plan names it.

use anyhow::Result;

use super::known::Known;
use crate::moving::Move;
use crate::moving::inventory::{Inventory, Object, Unused};
use crate::moving::plan::{Plan, Weight};

/// How many objects the note shows.
const SHOWN: usize = 10;

/// Adds to a plan what the known statements name and the target lacks, and what unknown statements may name.
///
/// # Errors
/// If a database does not answer, or a file of statements cannot be read.
pub async fn describe(plan: &mut Plan, the_move: &mut Move, inventory: &Inventory) -> Result<()> {
    let known = Known::read(the_move).await?.statements();
    let Move { owner, owner_name, source, target, .. } = the_move;
    let entry = |names: &[String]| format!("`owners.{owner_name}.bring = {names:?}`");
    let texts = known.iter().map(|statement| &*statement.text);
    let missing = inventory.missing_for(&mut source.connection, &mut target.connection, texts).await?;
    let missing: Vec<String> = missing.iter().map(Object::shown).collect();
    for shown in &missing {
        let text = format!(
            "{shown}: the application's statements need it, none of the tables does, and the target lacks it: {} brings it",
            entry(std::slice::from_ref(shown))
        );
        plan.add(Weight::Warning, "along", text);
    }
    let mut unused = inventory.unused(&mut source.connection, &mut target.connection, &owner.role).await?;
    unused.retain(|object| !missing.contains(&object.shown));
    let (granted, unused): (Vec<_>, Vec<_>) = unused.into_iter().partition(|object| object.is_granted);
    for Unused { shown, .. } in granted {
        let text = format!(
            "{shown}: {} was given rights on it, and none of the tables needs it, so it does not come along: {} brings it",
            owner.role,
            entry(std::slice::from_ref(&shown))
        );
        plan.add(Weight::Warning, "along", text);
    }
    let mut unused: Vec<String> = unused.into_iter().map(|object| object.shown).collect();
    if !unused.is_empty() {
        let more = unused.len().saturating_sub(SHOWN);
        unused.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!(
            "{}{more}: nothing in the database uses them, so they do not come along. What a statement of the application \
             uses comes by an entry like {}",
            unused.join(", "),
            entry(&unused[..1])
        );
        plan.add(Weight::Note, "along", text);
    }
    Ok(())
}
