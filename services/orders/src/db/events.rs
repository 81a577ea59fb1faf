//! The log `order_events`, and the tables `orders_cursors` and `orders_parked_events`. The log has no foreign key to
//! `orders`, because the rows of `orders` are made from it.

use chassis::events::LoggedEvent;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use shared_db::run;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::customer;
use crate::App;
use crate::domain::Customer;
use crate::error::Error;

chassis::event_store!(App, run, Error, "order", "orders");

/// An order's events up to a moment, oldest first, and its customer as it is now.
pub async fn events_until(
    connection: &mut PgConnection,
    order_id: Uuid,
    until: DateTime<Utc>,
    in_view: bool,
) -> Result<(Vec<LoggedEvent>, Option<Customer>), sqlx::Error> {
    let rows = sqlx::query_file!("src/db/events/until.sql", order_id, until, in_view,);
    let mut found = None;
    let mut events = Vec::new();
    for row in rows.fetch_all(connection).await? {
        found = customer(row.user_id, row.name, row.status, row.customer_version);
        events.push(LoggedEvent {
            subject: order_id,
            version: row.version,
            r#type: row.r#type,
            data: row.data,
            occurred_at: row.occurred_at,
        });
    }
    Ok((events, found))
}
