//! An order as it was at a moment.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::wire::Order;
use crate::App;
use crate::domain::fold;
use crate::error::Error;
use crate::events::read;

/// The order as it was at `moment`, folded from its events. It has today's customer, and so no entity tag.
pub async fn order_as_of(app: &App, id: Uuid, moment: DateTime<Utc>) -> Result<Order, Error> {
    let (events, customer) = app.customers.events_until(&app.database, id, moment).await?;
    let recorded: Result<Vec<_>, _> = events.iter().map(read).collect();
    let order = fold(id, recorded?)?.ok_or(Error::NotFound)?;
    let customer = app.customers.of(order.user_id, customer).await;
    Ok(Order::new(order, customer).untagged())
}
