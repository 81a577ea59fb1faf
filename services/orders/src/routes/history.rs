//! An order as it was at a moment.

use chassis::events::ReadAfter;
use chrono::{DateTime, Utc};
use shared_db::run;
use uuid::Uuid;

use super::wire::Order;
use crate::App;
use crate::db::events::first_event;
use crate::error::Error;
use crate::events::{LogError, Logged, fold_log};

/// The order as it was at `moment`, folded from its events. It has today's customer, and so no entity tag.
pub async fn order_as_of(app: &App, id: Uuid, moment: DateTime<Utc>, seen: ReadAfter) -> Result<Order, Error> {
    let (events, customer) = app.customers.events_until(&app.database, id, moment, seen).await?;
    let Some(order) = fold_log(id, &events)? else { return Err(unknown(app, id, moment, seen).await?) };
    let customer = app.customers.of(order.user_id, customer).await;
    Ok(Order::new(order, customer).untagged())
}

/// Why the log has no event of the order up to `moment`.
async fn unknown(app: &App, id: Uuid, moment: DateTime<Utc>, seen: ReadAfter) -> Result<Error, Error> {
    let first = run!(app.database, seen.transaction(), connection => first_event(connection, id)).await?;
    let base = first.as_ref().map(Logged::base).transpose().map_err(LogError::from)?.flatten();
    let is_placed = base.is_some_and(|order| order.placed_at <= moment);
    Ok(if is_placed { Error::Archived } else { Error::NotFound })
}
