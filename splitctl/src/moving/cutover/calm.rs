//! What a switch waits for while nobody waits for it: materialised views, the time since the last switch, standbys, and a
//! calm stream.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use crate::exit::{Refused, require};
use crate::moving::schema::Filled;
use crate::moving::{Move, Side, crash_point, marker, schema, slot, stalled, standbys};

/// How long the stream may take for a marker before the switch.
const LAG: Duration = Duration::from_secs(30);
/// A stream that takes longer for a marker is too slow for a fence.
const CALM: Duration = Duration::from_millis(500);
/// The time between two switches.
const REST: Duration = Duration::from_secs(3);

/// Waits for all of it.
///
/// # Errors
/// [`Refused`] with what does not come.
pub(super) async fn wait(the_move: &mut Move) -> Result<()> {
    wait_for_standbys(the_move).await?;
    rest(the_move).await?;
    until_calm(the_move).await
}

/// Fills the materialised views of the target, which still show the rows of the copy. Those of the source are the
/// application's own, and a way back must be short.
///
/// # Errors
/// [`Refused`] if the stream is behind.
pub(super) async fn refresh_views(the_move: &mut Move) -> Result<()> {
    if the_move.owner.views.is_empty() || the_move.lives() == Side::Target {
        return Ok(());
    }
    until_calm(the_move).await?;
    let Move { owner, source, target, .. } = the_move;
    schema::refresh(source, target, owner, Filled::Again).await?;
    crash_point("views filled");
    Ok(())
}

/// The standbys of both sides must have the slots with which they would go on: that of the stream until the switch, and that
/// of the way back.
async fn wait_for_standbys(Move { owner, owner_name, source, target, state, .. }: &mut Move) -> Result<()> {
    let (from, to) = state.switch.lives.order(source, target);
    let owner_name = owner_name.as_str();
    let mark = async |connection: &mut PgConnection| marker::set(connection, owner_name).await.map(drop);
    standbys::wait_for(from, owner, &state.stream(), mark).await?;
    let way_back = state.way_back();
    if slot::is_for_standbys(to, &way_back).await?
        && let Some(awaited) = standbys::awaited(to).await?
    {
        return Err(Refused(awaited).into());
    }
    let advance = async |connection: &mut PgConnection| {
        let flushed = slot::flush(connection, "").await?;
        slot::advance(connection, &way_back, &flushed).await.map(drop)
    };
    standbys::wait_for(to, owner, &way_back, advance).await
}

/// A service may have missed the last switch. It trusts what it knows for a second; if the side that it knows were opened
/// again within that second, it would write there too early.
async fn rest(Move { owner_name, source, target, state, .. }: &mut Move) -> Result<()> {
    let (from, _) = state.switch.lives.order(source, target);
    let since: Option<f64> =
        query_scalar(SINCE_LAST_SWITCH).bind(owner_name.as_str()).fetch_one(&mut from.connection).await?;
    if let Some(left) = since.map(|since| REST.as_secs_f64() - since).filter(|left| *left > 0.0) {
        tokio::time::sleep(Duration::from_secs_f64(left).min(REST)).await;
    }
    Ok(())
}

async fn until_calm(Move { owner_name, source, target, state, .. }: &mut Move) -> Result<()> {
    let (from, to) = state.switch.lives.order(source, target);
    let begun = Instant::now();
    loop {
        let sent = Instant::now();
        let token = marker::set(&mut from.connection, owner_name).await?;
        if !marker::wait(&mut to.connection, owner_name, token, LAG).await? {
            let stands = stalled::describe(from, to, &state.stream()).await?;
            return Err(Refused(format!(
                "{owner_name}: the stream is more than {LAG:?} behind: wait, and repeat the command. {stands}"
            ))
            .into());
        }
        if sent.elapsed() < CALM {
            return Ok(());
        }
        require!(
            begun.elapsed() < LAG * 2,
            "{owner_name}: the stream is {:?} behind again and again: try at a quieter time",
            sent.elapsed()
        );
    }
}

const SINCE_LAST_SWITCH: &str = r"
    select extract(epoch from clock_timestamp() - max(at))::float8
    from splitctl.switches
    where owner = $1";
