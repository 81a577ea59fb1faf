//! The table `users`. A change and its event are one statement, so they take one round trip, and Postgres commits both or
//! neither.

use chassis::events::Position;
use shared_db::{Connection, JsonText};
use uuid::Uuid;

use crate::domain::{Status, User};
use crate::events::Announcement;

shared_db::decode_status!(Status);

/// Selects users.
macro_rules! select_users {
    ($rest:literal, $($parameter:expr),+) => {
        sqlx::query_as!(
            User,
            r#"
            select id, email, name, status as "status: Status", created_at, updated_at, version
            from users
            "# + $rest,
            $($parameter),+
        )
    };
}

/// The user with this id.
pub async fn find_user(connection: &mut Connection, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    select_users!("where id = $1", id).fetch_optional(connection).await
}

/// The user with this id, and a position in the log behind every change that this statement sees.
pub async fn find_user_to_change(connection: &mut Connection, id: Uuid) -> Result<Option<(User, Position)>, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        select
            id, email, name, status as "status: Status", created_at, updated_at, version,
            user_event_epoch() as "epoch!",
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1 as "newest!"
        from users
        where id = $1
        "#,
        id,
    );
    let found = found.fetch_optional(connection).await?.map(|row| {
        let (id, email, name, status) = (row.id, row.email, row.name, row.status);
        let (created_at, updated_at, version) = (row.created_at, row.updated_at, row.version);
        let user = User { id, email, name, status, created_at, updated_at, version };
        (user, Position { epoch: row.epoch, xid: row.newest, position: i64::MAX })
    });
    Ok(found)
}

/// The user with this email address, without regard to case.
pub async fn find_user_by_email(connection: &mut Connection, email: &str) -> Result<Option<User>, sqlx::Error> {
    let user = select_users!(r#"where lower(email collate "C") = lower($1 collate "C")"#, email);
    user.fetch_optional(connection).await
}

/// The users with these ids, newest first. Unknown ids are left out.
pub async fn find_users(connection: &mut Connection, ids: &[Uuid]) -> Result<Vec<User>, sqlx::Error> {
    select_users!("where id = any($1) order by id desc", ids).fetch_all(connection).await
}

/// The newest `limit` users that are older than `before`. A page is always full: a hundred of the largest users are less
/// than the bytes of a page.
pub async fn list_users(connection: &mut Connection, before: Option<Uuid>, limit: i64) -> Result<Vec<User>, sqlx::Error> {
    // This id is above every UUIDv7, so the first page needs no statement of its own.
    let before = before.unwrap_or(Uuid::max());
    select_users!("where id < $1 order by id desc limit $2", before, limit).fetch_all(connection).await
}

/// Inserts a new user and its event. Returns the event's position in the log.
pub async fn insert_user(
    connection: &mut Connection,
    user: &User,
    announcement: &Announcement,
) -> Result<Position, sqlx::Error> {
    sqlx::query_file_as!(
        Position,
        "src/db/users/insert.sql",
        user.id,
        user.email,
        user.name,
        user.status.as_str(),
        user.created_at,
        user.updated_at,
        user.version,
        announcement.r#type,
        JsonText(&announcement.data) as _,
        announcement.actor.as_deref(),
        announcement.traceparent.as_deref(),
    )
    .fetch_one(connection)
    .await
}

/// Writes the user over the previous version, and its event. Returns the event's position in the log; `None` if another
/// version is stored by now.
///
/// An earlier statement must have read the previous version. So this transaction is younger than the one that wrote that
/// version, and the feed shows their events in the order of the versions.
pub async fn update_user(
    connection: &mut Connection,
    user: &User,
    announcement: &Announcement,
) -> Result<Option<Position>, sqlx::Error> {
    sqlx::query_file_as!(
        Position,
        "src/db/users/update.sql",
        user.id,
        user.email,
        user.name,
        user.status.as_str(),
        user.updated_at,
        user.version,
        announcement.r#type,
        JsonText(&announcement.data) as _,
        announcement.actor.as_deref(),
        announcement.traceparent.as_deref(),
    )
    .fetch_optional(connection)
    .await
}

/// The outcome of a deactivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deactivation {
    /// The user is deactivated, and the event is in the log at this position.
    Done(Position),
    /// The user has open orders.
    OpenOrders,
    /// Another version of the user is stored by now.
    Changed,
}

/// [`update_user`] for a deactivation: it writes nothing if the view `open_orders` has the user.
pub async fn deactivate_user(
    connection: &mut Connection,
    user: &User,
    announcement: &Announcement,
) -> Result<Deactivation, sqlx::Error> {
    let row = sqlx::query_file!(
        "src/db/users/deactivate.sql",
        user.id,
        user.status.as_str(),
        user.updated_at,
        user.version,
        announcement.r#type,
        JsonText(&announcement.data) as _,
        announcement.actor.as_deref(),
        announcement.traceparent.as_deref(),
    )
    .fetch_one(connection)
    .await?;
    Ok(match (row.epoch, row.xid, row.position) {
        (Some(epoch), Some(xid), Some(position)) => Deactivation::Done(Position { epoch, xid, position }),
        _ if row.open => Deactivation::OpenOrders,
        _ => Deactivation::Changed,
    })
}
