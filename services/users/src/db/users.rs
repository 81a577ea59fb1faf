//! The table `users`. A change and its event are one statement, so they take one round trip, and Postgres commits both or
//! neither.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Status, User};
use crate::events::Announcement;

struct UserRow {
    id: Uuid,
    email: String,
    name: String,
    status: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

impl TryFrom<UserRow> for User {
    type Error = sqlx::Error;

    fn try_from(row: UserRow) -> Result<Self, sqlx::Error> {
        let UserRow { id, email, name, status, created_at, updated_at, version } = row;
        let status = Status::parse(&status).ok_or_else(|| sqlx::Error::Decode(format!("unknown status {status}").into()))?;
        Ok(Self { id, email, name, status, created_at, updated_at, version })
    }
}

/// Selects users.
macro_rules! select_users {
    ($rest:literal, $($parameter:expr),+) => {
        sqlx::query_as!(
            UserRow,
            r#"
            select id, email, name, status, created_at, updated_at, version
            from users
            "# + $rest,
            $($parameter),+
        )
    };
}

/// The user with this id.
pub async fn find_user(connection: &mut PgConnection, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    let row = select_users!("where id = $1", id).fetch_optional(connection).await?;
    row.map(User::try_from).transpose()
}

/// The user with this email address, without regard to case.
pub async fn find_user_by_email(connection: &mut PgConnection, email: &str) -> Result<Option<User>, sqlx::Error> {
    let row = select_users!(r#"where lower(email collate "C") = lower($1 collate "C")"#, email);
    row.fetch_optional(connection).await?.map(User::try_from).transpose()
}

/// The users with these ids, newest first. Unknown ids are left out.
pub async fn find_users(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<User>, sqlx::Error> {
    let rows = select_users!("where id = any($1) order by id desc", ids).fetch_all(connection).await?;
    rows.into_iter().map(User::try_from).collect()
}

/// The newest `limit` users that are older than `before`.
pub async fn list_users(connection: &mut PgConnection, before: Option<Uuid>, limit: i64) -> Result<Vec<User>, sqlx::Error> {
    // This id is above every UUIDv7, so the first page needs no statement of its own.
    let before = before.unwrap_or(Uuid::max());
    let rows = select_users!("where id < $1 order by id desc limit $2", before, limit).fetch_all(connection).await?;
    rows.into_iter().map(User::try_from).collect()
}

/// Inserts a new user and its event.
pub async fn insert_user(
    connection: &mut PgConnection,
    user: &User,
    announcement: &Announcement,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        with registered as (
            insert into users (id, email, name, status, created_at, updated_at, version)
            values ($1, $2, $3, $4, $5, $6, $7)
            returning id, version, updated_at
        )
        insert into user_events (user_id, version, type, data, occurred_at)
        select id, version, $8, $9, updated_at
        from registered
        "#,
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
    let done = sqlx::query!(
        r#"
        with changed as (
            update users
            set email = $2, name = $3, status = $4, updated_at = $5, version = $6
            where id = $1
              and version = $6::bigint - 1
            returning id, version, updated_at
        )
        insert into user_events (user_id, version, type, data, occurred_at)
        select id, version, $7, $8, updated_at
        from changed
        "#,
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
    let row = sqlx::query!(
        r#"
        with open as (
            select open_count
            from open_orders
            where user_id = $1
        ),
        changed as (
            update users
            set status = $2, updated_at = $3, version = $4
            where id = $1
              and version = $4::bigint - 1
              and not exists (select from open)
            returning id, version, updated_at
        ),
        event as (
            insert into user_events (user_id, version, type, data, occurred_at)
            select id, version, $5, $6, updated_at
            from changed
        )
        select
            exists (select from changed) as "done!",
            exists (select from open) as "open!"
        "#,
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
