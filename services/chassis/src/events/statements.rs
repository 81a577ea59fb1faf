//! The statements on a service's event tables.

/// Implements [`EventStore`](crate::events::EventStore) for `$store`, which has the fields `database` and `wakeups`.
///
/// The tables are called after the service and its noun: `("order", "orders")` reads `order_events` with its column
/// `order_id` and the function `order_event_epoch()`, and writes `orders_cursors` and `orders_parked_events`.
///
/// A macro, so that sqlx checks every statement inside the service's crate, under the service's role. chassis itself has no
/// dependency on sqlx. `$run` names the macro that runs a statement on `database`; `$error` must come from its error.
/// With the epoch and the number of a transaction as its second argument, it may run a statement on a standby that has it.
/// `$types` is what the service publishes; `$owner` selects whom the subject `$1` belongs to, if not to itself.
#[macro_export]
macro_rules! event_store {
    ($store:ty, $run:ident, $error:ty, $noun:literal, $service:literal, $types:expr $(, owner = $owner:literal)?) => {
        /// The position behind all events of the log whose transactions are older than every open one.
        pub async fn end_of_log(connection: &mut sqlx::PgConnection) -> Result<$crate::events::Position, sqlx::Error> {
            sqlx::query_as!(
                $crate::events::Position,
                "select " + $noun + r#"_event_epoch() as "epoch!", 9223372036854775807 as "position!",
                        pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 as "xid!""#,
            )
            .fetch_one(connection)
            .await
        }

        impl $crate::events::EventStore for $store {
            type Error = $error;
            const SERVICE: &'static str = $service;
            const SOURCE: &'static str = concat!("/", $service);
            const TYPES: &'static [$crate::events::EventType] = $types;

            fn wakeups(&self) -> &$crate::events::Wakeups {
                &self.wakeups
            }

            async fn history(
                &self,
                subject: uuid::Uuid,
                after: i64,
                limit: i64,
                seen: $crate::events::ReadAfter,
            ) -> Result<$crate::http::page::Rows<$crate::events::LoggedEvent>, $error> {
                // The events are as large as in the feed.
                let rows = $run!(self.database, seen.transaction(), connection => sqlx::query!(
                    r#"select version as "version!", type as "type!", occurred_at as "occurred_at!", actor as "actor?",
                        traceparent as "traceparent?", data as "data!: Box<serde_json::value::RawValue>",
                        found > count(*) over () as "is_cut!"
                    from (
                        select *, count(*) over () as found, row_number() over page as number,
                            sum(octet_length(data::text) + 512 + 2 * coalesce(octet_length(actor), 0)) over page as bytes
                        from (
                            select version, type, data, occurred_at, actor, traceparent
                            from "# + $noun + "_events
                            where " + $noun + "_id = $1
                              and version > $2
                            order by version
                            limit $3
                        ) oldest
                        window page as (order by version)
                    ) page
                    where number = 1
                       or bytes <= $4::bigint
                    order by version",
                    subject, after, limit, $crate::events::PAGE_BYTES,
                ).fetch_all(&mut *connection)).await?;
                Ok(rows
                    .into_iter()
                    .map(|row| {
                        let event = $crate::events::LoggedEvent {
                            subject, version: row.version, r#type: row.r#type, data: row.data,
                            occurred_at: row.occurred_at, actor: row.actor, traceparent: row.traceparent,
                        };
                        (row.is_cut, event)
                    })
                    .collect())
            }

            $(
                async fn owner(&self, subject: uuid::Uuid, seen: $crate::events::ReadAfter)
                    -> Result<Option<uuid::Uuid>, $error> {
                    let found = $run!(self.database, seen.transaction(), connection => sqlx::query_scalar!($owner, subject)
                        .fetch_optional(&mut *connection));
                    Ok(found.await?)
                }
            )?

            async fn feed(&self, after: $crate::events::Position, limit: i64, seen: $crate::events::ReadAfter)
                -> Result<Vec<$crate::events::FeedEvent>, $error> {
                let $crate::events::Position { epoch, xid, position } = after;
                // One event after the other, so that Postgres reads no event that the page has no room for. An event has at
                // most 512 bytes beside its data and its actor, who may be escaped. `xid` is read and compared as text: sqlx
                // has no type for `xid8`.
                Ok($run!(self.database, seen.transaction(), connection => sqlx::query_as!(
                    $crate::events::FeedEvent,
                    "with recursive page as (
                        (
                            select " + $noun + "_id as subject, version, type, occurred_at, actor, traceparent, data,
                                epoch, xid, position, 1 as number,
                                octet_length(data::text) + 512 + 2 * coalesce(octet_length(actor), 0) as bytes
                            from " + $noun + "_events
                            where (epoch, xid, position) > ($1, $2::bigint::text::xid8, $3)
                              and (epoch < " + $noun + "_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
                            order by epoch, xid, position
                            limit 1
                        )
                        union all
                        select next.subject, next.version, next.type, next.occurred_at, next.actor, next.traceparent,
                            next.data, next.epoch, next.xid, next.position, page.number + 1, page.bytes + next.bytes
                        from page
                        cross join lateral (
                            select " + $noun + "_id as subject, version, type, occurred_at, actor, traceparent, data,
                                epoch, xid, position,
                                octet_length(data::text) + 512 + 2 * coalesce(octet_length(actor), 0) as bytes
                            from " + $noun + "_events
                            where (epoch, xid, position) > (page.epoch, page.xid, page.position)
                              and (epoch < " + $noun + "_event_epoch() or xid < pg_snapshot_xmin(pg_current_snapshot()))
                            order by epoch, xid, position
                            limit 1
                        ) next
                        where page.number < $4::bigint
                          and page.bytes + next.bytes <= $5::bigint
                    )
                    " + r#"select subject as "subject!", version as "version!", type as "type!", data as "data!: _",
                        occurred_at as "occurred_at!", actor as "actor?", traceparent as "traceparent?", epoch as "epoch!",
                        xid::text::bigint as "xid!", position as "position!", mark.cursor as "archived_up_to?"
                    from page
                    left join "# + $service + r#"_cursors mark on mark.log = 'own log, archived'
                        and ($1, $2::bigint::text::xid8, $3) < (split_part(mark.cursor, '/', 1)::bigint,
                            split_part(mark.cursor, '/', 2)::xid8, split_part(mark.cursor, '/', 3)::bigint)
                    order by epoch, xid, position"#,
                    epoch, xid, position, limit, $crate::events::PAGE_BYTES,
                ).fetch_all(&mut *connection)).await?)
            }

            async fn newest(&self) -> Result<$crate::events::Position, $error> {
                let newest = $run!(self.database, connection => sqlx::query_as!(
                    $crate::events::Position,
                    r#"select epoch, xid::text::bigint as "xid!", position
                    from "# + $noun + "_events
                    where epoch < " + $noun + "_event_epoch()
                       or xid < pg_snapshot_xmin(pg_current_snapshot())
                    order by epoch desc, xid desc, position desc
                    limit 1",
                ).fetch_optional(&mut *connection)).await?;
                Ok(newest.unwrap_or_default())
            }

            async fn end(&self) -> Result<$crate::events::Position, $error> {
                Ok($run!(self.database, connection => end_of_log(connection)).await?)
            }

            async fn archive(
                &self,
                older_than: chrono::DateTime<chrono::Utc>,
                most: i32,
                file: &mut $crate::events::archive::ArchiveFile,
            ) -> Result<std::io::Result<$crate::events::archive::Archived>, $error> {
                async fn archive(
                    connection: &mut sqlx::PgConnection,
                    older_than: chrono::DateTime<chrono::Utc>,
                    most: i32,
                    file: &mut $crate::events::archive::ArchiveFile,
                ) -> Result<std::io::Result<$crate::events::archive::Archived>, sqlx::Error> {
                    let mut transaction = sqlx::Connection::begin(connection).await?;
                    let moved = sqlx::query_as!(
                        $crate::events::LoggedEvent,
                        "select " + $noun + r#"_id as "subject!", version as "version!", type as "type!", data as "data!: _",
                            occurred_at as "occurred_at!", actor as "actor?", traceparent as "traceparent?"
                        from archive_"# + $noun + "_events($1, $2)
                        order by 1, 2",
                        older_than,
                        most,
                    ).fetch_all(&mut *transaction).await?;
                    let mark = sqlx::query_scalar!(
                        "select cursor from " + $service + "_cursors where log = $1",
                        $crate::events::archive::ARCHIVED,
                    ).fetch_one(&mut *transaction).await?;
                    let events = moved.len();
                    if let Err(error) = file.write(moved.into_iter().map(|event| event.publish(concat!("/", $service)))) {
                        transaction.rollback().await?;
                        return Ok(Err(error));
                    }
                    transaction.commit().await?;
                    file.keep();
                    Ok(Ok($crate::events::archive::Archived { events, mark }))
                }
                Ok($run!(self.database, connection => archive(connection, older_than, most, file)).await?)
            }

            async fn obsolete(
                &self,
                mark: &str,
                older_than: chrono::DateTime<chrono::Utc>,
                most: i32,
            ) -> Result<$crate::events::archive::Obsolete, $error> {
                Ok($run!(self.database, connection => sqlx::query_as!(
                    $crate::events::archive::Obsolete,
                    r#"select count(*) filter (where follows) as "events!",
                        (array_agg(format('%s/%s/%s', epoch, xid, position) order by (epoch, xid, position) desc))[1] as mark
                    from "# + $noun + "_events_older($1, $2, $3)",
                    mark,
                    older_than,
                    most,
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
                    set cursor = excluded.cursor, stored_at = excluded.stored_at",
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
                    set type = excluded.type, data = excluded.data, error = excluded.error, parked_at = excluded.parked_at",
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
                    r#"select id, type, data, null::timestamptz as "time", null::text as traceparent
                    from "# + $service + "_parked_events
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
