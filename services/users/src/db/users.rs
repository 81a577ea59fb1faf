//! The table `users`. A change and its event are one statement, so they take one round trip, and Postgres commits both or
//! neither.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, PgConnection, Postgres, Type};
use uuid::Uuid;

use crate::domain::{Status, User};
use crate::events::Announcement;

impl Type<Postgres> for Status {
    fn type_info() -> PgTypeInfo {
        <&str as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Status {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <&str>::decode(value)?;
        Self::parse(text).ok_or_else(|| format!("unknown status {text}").into())
    }
}

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
pub async fn find_user(connection: &mut PgConnection, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    select_users!("where id = $1", id).fetch_optional(connection).await
}

/// The user with this email address, without regard to case.
pub async fn find_user_by_email(connection: &mut PgConnection, email: &str) -> Result<Option<User>, sqlx::Error> {
    let user = select_users!(r#"where lower(email collate "C") = lower($1 collate "C")"#, email);
    user.fetch_optional(connection).await
}

/// The users with these ids, newest first. Unknown ids are left out.
pub async fn find_users(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<User>, sqlx::Error> {
    select_users!("where id = any($1) order by id desc", ids).fetch_all(connection).await
}

/// The newest `limit` users that are older than `before`.
pub async fn list_users(connection: &mut PgConnection, before: Option<Uuid>, limit: i64) -> Result<Vec<User>, sqlx::Error> {
    // This id is above every UUIDv7, so the first page needs no statement of its own.
    let before = before.unwrap_or(Uuid::max());
    select_users!("where id < $1 order by id desc limit $2", before, limit).fetch_all(connection).await
}

/// Inserts a new user and its event.
pub async fn insert_user(
    connection: &mut PgConnection,
    user: &User,
    announcement: &Announcement,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/db/users/insert.sql",
        user.id,
        user.email,
        user.name,
        user.status.as_str(),
        user.created_at,
        user.updated_at,
        user.version,
        announcement.r#type,
        &announcement.data as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the user over the previous version, and its event. `false` if another version is stored by now.
///
/// An earlier statement must have read the previous version. So this transaction is younger than the one that wrote that
/// version, and the feed shows their events in the order of the versions.
pub async fn update_user(
    connection: &mut PgConnection,
    user: &User,
    announcement: &Announcement,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query_file!(
        "src/db/users/update.sql",
        user.id,
        user.email,
        user.name,
        user.status.as_str(),
        user.updated_at,
        user.version,
        announcement.r#type,
        &announcement.data as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The outcome of a deactivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deactivation {
    /// The user is deactivated, and the event is in the log.
    Done,
    /// The user has open orders.
    OpenOrders,
    /// Another version of the user is stored by now.
    Changed,
}

/// [`update_user`] for a deactivation: it writes nothing if the view `open_orders` has the user.
pub async fn deactivate_user(
    connection: &mut PgConnection,
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
        &announcement.data as _,
    )
    .fetch_one(connection)
    .await?;
    Ok(match row {
        _ if row.done => Deactivation::Done,
        _ if row.open => Deactivation::OpenOrders,
        _ => Deactivation::Changed,
    })
}
