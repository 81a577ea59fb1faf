//! What a failover of a side would do to the move, and what it takes that the stream survives it.

use anyhow::Result;

use super::Plan;
use super::Weight::{Error, Note, Warning};
use crate::manifest::Owner;
use crate::moving::standbys::{self, Standbys};
use crate::moving::{Database, Move, Side, slot};

/// What a lost stream means.
const LOST: &str = "If one takes over while the tables live here, the stream to the other side is lost: `splitctl abort` \
     and copy again, or after the cutover `splitctl complete --give-up-way-back`. Name all hosts in the URL, with \
     `target_session_attrs=read-write`";

/// Checks both sides.
pub(super) async fn check(plan: &mut Plan, Move { owner, source, target, .. }: &mut Move) -> Result<()> {
    for database in [source, target] {
        check_side(plan, owner, database).await?;
    }
    Ok(())
}

async fn check_side(plan: &mut Plan, owner: &Owner, database: &mut Database) -> Result<()> {
    let standbys = Standbys::find(database).await?;
    let (address, names) = (database.address(), standbys.names());
    if slot::for_standbys(database, owner)
        && let Some(awaited) = standbys::awaited(database).await?
    {
        let text = format!("{address}: {awaited}. Or write `failover = false` for the owner in the manifest");
        plan.add(Error, "failover", text);
    }
    if standbys.followers.is_empty() {
        return Ok(());
    }
    if !slot::for_standbys(database, owner) {
        let why = match database.version >= 17 {
            true => "the manifest has `failover = false`",
            false => "before Postgres 17 a standby has no slots of its primary",
        };
        let text =
            format!("{address}: {names} follow this server, and {why}: after a failover the copy starts again. {LOST}");
        plan.add(Warning, "failover", text);
        return Ok(());
    }
    let mut reasons = check_standbys(plan, database, &standbys).await?;
    if let Some(unknown) = standbys.unknown() {
        let key = if database.side == Side::Source { "source_standbys" } else { "target_standbys" };
        reasons.push(format!("splitctl cannot ask {unknown}: name it in the URL or in `{key}`"));
    }
    let (weight, text) = match reasons.is_empty() {
        true => {
            (Note, format!("{address}: {names} follow this server and get its slots, so a move goes on after a failover"))
        }
        false => (Warning, format!("{address}: {names} follow this server, and {}. {LOST}", reasons.join("; "))),
    };
    plan.add(weight, "failover", text);
    Ok(())
}

/// Names what each standby lacks. Returns which of them lack something.
async fn check_standbys(plan: &mut Plan, database: &mut Database, standbys: &Standbys) -> Result<Vec<String>> {
    let (address, mut reasons) = (database.address(), Vec::new());
    let awaited = standbys::list_awaited(database).await?;
    let awaited: Vec<&str> = awaited.iter().map(|awaited| awaited.slot.as_str()).collect();
    for standby in &standbys.reached {
        let lacking = standby.setup.lacking();
        for what in &lacking {
            plan.add(Warning, "failover", format!("{}: {what}", standby.address));
        }
        if !lacking.is_empty() {
            reasons.push(format!("{} would not have its slots", standby.address));
        }
        let name = &standby.setup.slot;
        if !name.is_empty() && !awaited.contains(&name.as_str()) {
            let text = format!(
                "{address}: synchronized_standby_slots does not name {name}, so the other side may get rows before {} \
                 has them, and a failover would leave them there alone: `alter system set synchronized_standby_slots = \
                 '{}'`, and reload",
                standby.address,
                [&awaited[..], &[name.as_str()]].concat().join(", ")
            );
            plan.add(Warning, "failover", text);
        }
    }
    Ok(reasons)
}
