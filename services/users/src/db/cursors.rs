//! The table `users_cursors`: how far logs have been read.

use sqlx::PgConnection;

/// The log of orders, by its feed.
pub const FEED: &str = "orders' feed";
/// The service's own log, on its way to the broker.
pub const RELAY: &str = "own log, to the broker";

/// Where the log goes on.
pub async fn find_cursor(connection: &mut PgConnection, log: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("select cursor from users_cursors where log = $1", log).fetch_optional(connection).await
}

/// Stores where the log goes on.
pub async fn store_cursor(connection: &mut PgConnection, log: &str, cursor: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into users_cursors (log, cursor)
        values ($1, $2)
        on conflict (log) do update
        set cursor = excluded.cursor, stored_at = clock_timestamp()
        "#,
        log,
        cursor,
    )
    .execute(connection)
    .await?;
    Ok(())
}
