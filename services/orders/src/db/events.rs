//! The log `order_events`, and the tables `orders_cursors` and `orders_parked_events`. The log has no foreign key to
//! `orders`, because the rows of `orders` are made from it.

use chassis::events::LoggedEvent;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use shared_db::{Connection, Ending, Transaction, run};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows::customer;
use crate::App;
use crate::domain::Customer;
use crate::error::Error;
use crate::events::{Logged, TYPES};

/// The end of the log on a standby.
pub fn end_on_standby(standby: &mut PgConnection) -> Ending<'_> {
    Box::pin(async move { end_of_log(standby).await.map(|end| Transaction { epoch: end.epoch, number: end.xid }) })
}

chassis::event_store!(App, run, Error, "order", "orders", TYPES, owner = "select user_id from orders where id = $1");

/// Selects events as [`Logged`].
macro_rules! select_logged {
    ($rest:literal, $($parameter:expr),+) => {
        sqlx::query!(
            r#"
            select
                e.order_id, e.version, e.type, e.data as "data: Box<serde_json::value::RawValue>", e.occurred_at,
                e.actor, e.traceparent,
                exists (
                    select 1
                    from orders_cursors
                    where log = 'own log, archived'
                      and (e.epoch, e.xid, e.position) <= (
                            split_part(cursor, '/', 1)::bigint,
                            split_part(cursor, '/', 2)::xid8,
                            split_part(cursor, '/', 3)::bigint
                        )
                ) as "is_archived!"
            from order_events e
            "# + $rest,
            $($parameter),+
        )
        .map(|row| {
            let (subject, version) = (row.order_id, row.version);
            let event = chassis::events::LoggedEvent {
                subject, version, r#type: row.r#type, data: row.data, occurred_at: row.occurred_at, actor: row.actor,
                traceparent: row.traceparent,
            };
            $crate::events::Logged { event, is_archived: row.is_archived }
        })
    };
}
pub(super) use select_logged;

/// The oldest event of an order that the log has.
pub async fn first_event(connection: &mut Connection, order_id: Uuid) -> Result<Option<Logged>, sqlx::Error> {
    select_logged!("where e.order_id = $1 order by e.version limit 1", order_id).fetch_optional(connection).await
}

/// An order's events up to a moment, oldest first, and its customer as it is now.
pub async fn events_until(
    connection: &mut Connection,
    order_id: Uuid,
    until: DateTime<Utc>,
    in_view: bool,
) -> Result<(Vec<Logged>, Option<Customer>), sqlx::Error> {
    let rows = sqlx::query_file!("src/db/events/until.sql", order_id, until, in_view,);
    let mut found = None;
    let mut events = Vec::new();
    for row in rows.fetch_all(connection).await? {
        found = customer(row.user_id, row.name, row.status, row.customer_version);
        let (version, r#type, data, occurred_at) = (row.version, row.r#type, row.data, row.occurred_at);
        let (actor, traceparent) = (row.actor, row.traceparent);
        let event = LoggedEvent { subject: order_id, version, r#type, data, occurred_at, actor, traceparent };
        events.push(Logged { event, is_archived: row.is_archived });
    }
    Ok((events, found))
}
