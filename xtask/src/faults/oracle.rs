//! The oracle: compares every acknowledged write with the database.

use anyhow::Result;
use sqlx::PgConnection;
use uuid::Uuid;

use super::load::{History, Known};

/// What the oracle has found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: u64,
    /// Acknowledged states that no event has.
    pub lost: u64,
    /// Events beyond the version of their user or order, and orders beyond the first of an idempotency key.
    pub doubled: u64,
}

/// Compares the history with the logs.
pub async fn judge(owner: &mut PgConnection, history: &History) -> Result<Verdict> {
    let mut verdict = Verdict { doubled: history.doubled, ..Verdict::default() };
    compare(&mut verdict, &history.users, sqlx::query_as(USER_EVENTS).fetch_all(&mut *owner).await?);
    compare(&mut verdict, &history.orders, sqlx::query_as(ORDER_EVENTS).fetch_all(&mut *owner).await?);
    verdict.doubled += sqlx::query_scalar::<_, i64>(UNSOUND).fetch_one(owner).await?.unsigned_abs();
    Ok(verdict)
}

fn compare(verdict: &mut Verdict, acknowledged: &Known, events: Vec<(Uuid, i64, String)>) {
    let events: Known = events.into_iter().map(|(id, version, state)| ((id, version), state)).collect();
    verdict.acknowledged += acknowledged.len() as u64;
    verdict.lost += acknowledged.iter().filter(|(key, state)| events.get(*key) != Some(*state)).count() as u64;
}

const USER_EVENTS: &str = "select user_id, version, data->>'name' from user_events";

const ORDER_EVENTS: &str = "select order_id, version, data->>'status' from order_events";

/// A sound log has one event for each version, and each of them is of something that is there.
const UNSOUND: &str = r"
    select
        (
            select count(*)
            from users u
            full join (select user_id, count(*) as events from user_events group by 1) e on e.user_id = u.id
            where u.version is distinct from e.events
        ) + (
            select count(*)
            from orders o
            full join (select order_id, count(*) as events from order_events group by 1) e on e.order_id = o.id
            where o.version is distinct from e.events
        )";
