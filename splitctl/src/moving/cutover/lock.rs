//! The lock of a switch: writers wait from the request for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use super::fenced::Fenced;
use super::pause::{Clock, Pause, limits};
use super::poolers::Behind;
use super::ready::{PROCESS, Sessions};
use super::steps::Attempt;
use crate::database::execute;
use crate::moving::fence::{self, Locking};
use crate::moving::{Move, crash_point, relations};
use crate::names::Qualified;

impl Attempt<'_> {
    /// Changes the rights on both sides, which nobody sees yet, and locks the tables.
    pub(super) async fn lock(&mut self) -> Result<Fenced<'_>> {
        let Self { the_move, options, ready, guard, .. } = self;
        let Move { owner, owner_name, source, target, state, .. } = &mut **the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let process = query_scalar(PROCESS).fetch_one(&mut from.connection).await?;
        let mut sessions = Sessions::open(from, to, owner_name, ready, (state.way_back(), options.max_pause)).await?;
        let limit = if guard.is_some() { Behind::limit(options.max_pause) } else { options.max_pause };
        let lock = |left: Duration| lock_statement(&owner.tables, options.locking, left);
        let mut behind = guard.as_mut().map(Behind::new);
        let mut asked = Instant::now();
        let locked =
            fence::patiently(&mut from.connection, &owner.tables, options.locking, async |connection: &mut PgConnection| {
                let done = async {
                    sessions.change_rights(connection, &mut to.connection).await?;
                    crash_point("rights changed");
                    asked = Instant::now();
                    match &mut behind {
                        None => execute(connection, lock(limit)).await,
                        Some(behind) => behind.lock(connection, &mut sessions.beside, limit, lock).await,
                    }
                };
                let done = done.await;
                if done.is_err() {
                    // If this fails too, the next attempt finds out.
                    let _ = sessions.roll_back().await;
                }
                done
            })
            .await;
        let (paused, refused) = behind.map(|behind| (behind.paused, behind.refused)).unwrap_or_default();
        locked.map_err(|error| refused.unwrap_or(error))?;
        let mut clock = Clock::new(asked);
        let pause = Pause { pooler: clock.skip(paused), lock: clock.lap(), ..Pause::default() };
        crash_point("locked");
        Ok(Fenced {
            from,
            to,
            owner: &*owner,
            owner_name,
            state,
            ready,
            max_pause: options.max_pause,
            deadline: asked + limit,
            process,
            sessions,
            clock,
            pause,
            way_back: String::new(),
        })
    }
}

/// Locks the tables in the transaction that has changed the rights.
fn lock_statement(tables: &[Qualified], locking: Locking, limit: Duration) -> String {
    // `lock_timeout` is one for each table; this is one for all of them.
    let patience = locking.lock_timeout.min(limit / 2);
    format!(
        "{}; set local statement_timeout = {}; lock table {} in share row exclusive mode",
        limits(limit - patience),
        patience.as_millis().max(1),
        relations::list(tables)
    )
}
