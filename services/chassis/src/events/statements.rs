//! The statements on a service's event tables.

/// Implements [`EventStore`](crate::events::EventStore) for `$store`, which has the fields `database` and `wakeups`.
///
/// The tables are called after the service and its noun: `("order", "orders")` reads `order_events` with its column
/// `order_id` and the function `order_event_epoch()`, and writes `orders_cursors` and `orders_parked_events`.
///
/// A macro, so that sqlx checks every statement inside the service's crate, under the service's role. chassis itself has no
/// dependency on sqlx. `$run` names the macro that runs a statement on `database`; `$error` must come from its error.
#[macro_export]
macro_rules! event_store {
    ($store:ty, $run:ident, $error:ty, $noun:literal, $service:literal) => {
        impl $crate::events::EventStore for $store {
            type Error = $error;
            const SERVICE: &'static str = $service;
            const SOURCE: &'static str = concat!("/", $service);

            fn wakeups(&self) -> &$crate::events::Wakeups {
                &self.wakeups
            }

            async fn history(
                &self,
                subject: uuid::Uuid,
                after: i64,
                limit: i64,
            ) -> Result<Vec<$crate::events::LoggedEvent>, $error> {
                Ok($run!(self.database, connection => sqlx::query_as!(
                    $crate::events::LoggedEvent,
                    "select " + $noun + r#"_id as subject, version, type, data as "data: _", occurred_at
                    from "# + $noun + "_events
                    where " + $noun + "_id = $1
                      and version > $2
                    order by version
                    limit $3",
                    subject,
                    after,
                    limit,
                ).fetch_all(&mut *connection)).await?)
            }

            async fn feed(
                &self,
                after: $crate::events::Position,
                limit: i64,
            ) -> Result<Vec<($crate::events::Position, $crate::events::LoggedEvent)>, $error> {
                let $crate::events::Position { epoch, xid, position } = after;
                // The column `xid` is read and compared as text, since sqlx has no type for `xid8`.
                Ok($run!(self.database, connection => sqlx::query!(
                    "select " + $noun + r#"_id as subject, version, type, occurred_at,
                        data as "data: Box<serde_json::value::RawValue>", epoch, xid::text::bigint as "xid!", position
                    from "# + $noun + "_events
                    where (epoch, xid, position) > ($1, $2::bigint::text::xid8, $3)
                      and (epoch < " + $noun + "_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
                    order by epoch, xid, position
                    limit $4",
                    epoch,
                    xid,
                    position,
                    limit,
                ).map(|row| {
                    let position = $crate::events::Position { epoch: row.epoch, xid: row.xid, position: row.position };
                    let event = $crate::events::LoggedEvent {
                        subject: row.subject,
                        version: row.version,
                        r#type: row.r#type,
                        data: row.data,
                        occurred_at: row.occurred_at,
                    };
                    (position, event)
                }).fetch_all(&mut *connection)).await?)
            }

            async fn end(&self) -> Result<$crate::events::Position, $error> {
                Ok($run!(self.database, connection => sqlx::query_as!(
                    $crate::events::Position,
                    "select " + $noun + r#"_event_epoch() as "epoch!", 9223372036854775807 as "position!",
                        pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 as "xid!""#,
                ).fetch_one(&mut *connection)).await?)
            }

            async fn withheld_seconds(&self) -> Result<f64, $error> {
                Ok($run!(self.database, connection => sqlx::query_scalar!(
                    r#"select coalesce(greatest(extract(epoch from now() - min(occurred_at)), 0), 0)::float8 as "seconds!"
                    from "# + $noun + "_events
                    where epoch = " + $noun + "_event_epoch()
                      and xid >= pg_snapshot_xmin(pg_current_snapshot())",
                ).fetch_one(&mut *connection)).await?)
            }

            async fn find_cursor(&self, name: &str) -> Result<Option<String>, $error> {
                Ok($run!(self.database, connection => sqlx::query_scalar!(
                    "select cursor from " + $service + "_cursors where log = $1",
                    name,
                ).fetch_optional(&mut *connection)).await?)
            }

            async fn store_cursor(&self, name: &str, cursor: &str) -> Result<(), $error> {
                $run!(self.database, connection => sqlx::query!(
                    "insert into " + $service + "_cursors (log, cursor)
                    values ($1, $2)
                    on conflict (log) do update
                    set cursor = excluded.cursor, stored_at = clock_timestamp()",
                    name,
                    cursor,
                ).execute(&mut *connection)).await?;
                Ok(())
            }

            async fn park(&self, event: &$crate::events::consumer::Received, error: &str) -> Result<(), $error> {
                $run!(self.database, connection => sqlx::query!(
                    "insert into " + $service + "_parked_events (id, type, data, error)
                    values ($1, $2, $3, $4)
                    on conflict (id) do update
                    set type = excluded.type, data = excluded.data, error = excluded.error, parked_at = clock_timestamp()",
                    event.id,
                    event.r#type,
                    event.data,
                    error,
                ).execute(&mut *connection)).await?;
                Ok(())
            }

            async fn parked(&self) -> Result<Vec<$crate::events::consumer::Received>, $error> {
                Ok($run!(self.database, connection => sqlx::query_as!(
                    $crate::events::consumer::Received,
                    r#"select id, type, data, null::timestamptz as "time" from "# + $service + "_parked_events
                    order by parked_at, id",
                ).fetch_all(&mut *connection)).await?)
            }

            async fn count_parked(&self) -> Result<i64, $error> {
                Ok($run!(self.database, connection => sqlx::query_scalar!(
                    r#"select count(*) as "count!" from "# + $service + "_parked_events",
                ).fetch_one(&mut *connection)).await?)
            }

            async fn unpark(&self, id: &str) -> Result<(), $error> {
                $run!(self.database, connection => sqlx::query!(
                    "delete from " + $service + "_parked_events where id = $1",
                    id,
                ).execute(&mut *connection)).await?;
                Ok(())
            }

            async fn now(&self) -> Result<chrono::DateTime<chrono::Utc>, $error> {
                Ok($run!(self.database, connection => sqlx::query_scalar!(
                    r#"select clock_timestamp() as "now!""#,
                ).fetch_one(&mut *connection)).await?)
            }
        }
    };
}
