//! The table `customers_replica`, how far it has been brought, and the view `customers`.

use chassis::events::consumer::Received;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::cursors::FEED;
use crate::customers::Customer;

/// The customer, by the view.
pub async fn find_customer(connection: &mut PgConnection, id: Uuid) -> Result<Option<Customer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Customer,
        r#"select id as "id!", name as "name!", status as "status!", version as "version!" from customers where id = $1"#,
        id,
    );
    row.fetch_optional(connection).await
}

/// Customers as columns, each once.
struct Columns<'a> {
    ids: Vec<Uuid>,
    names: Vec<&'a str>,
    statuses: Vec<&'a str>,
    versions: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn new(customers: &'a [Customer]) -> Self {
        Self {
            ids: customers.iter().map(|customer| customer.id).collect(),
            names: customers.iter().map(|customer| customer.name.as_str()).collect(),
            statuses: customers.iter().map(|customer| customer.status.as_str()).collect(),
            versions: customers.iter().map(|customer| customer.version).collect(),
        }
    }
}

/// Stores those of the customers that are newer than what is known, and with them where the feed goes on, if it does. Each
/// customer may be there once only.
pub async fn store_customers(
    connection: &mut PgConnection,
    customers: &[Customer],
    cursor: Option<&str>,
) -> Result<(), sqlx::Error> {
    let columns = Columns::new(customers);
    sqlx::query!(
        r#"
        with stored as (
            insert into customers_replica as known (id, name, status, version)
            select id, name, status, version
            from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as news (id, name, status, version)
            on conflict (id) do update
            set name = excluded.name, status = excluded.status, version = excluded.version,
                refreshed_at = clock_timestamp()
            where excluded.version > known.version
        )
        insert into orders_cursors (log, cursor)
        select $5, $6
        where $6::text is not null
        on conflict (log) do update
        set cursor = excluded.cursor, stored_at = clock_timestamp()
        "#,
        &columns.ids,
        &columns.names as _,
        &columns.statuses as _,
        &columns.versions,
        FEED,
        cursor,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The database's clock.
pub async fn now(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(connection).await
}

/// Stores customers of a snapshot that began at `begun`: over what is known, unless that is newer and came since.
pub async fn refresh_customers(
    connection: &mut PgConnection,
    customers: &[Customer],
    begun: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let columns = Columns::new(customers);
    sqlx::query!(
        r#"
        insert into customers_replica as known (id, name, status, version)
        select id, name, status, version
        from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as news (id, name, status, version)
        on conflict (id) do update
        set name = excluded.name, status = excluded.status, version = excluded.version, refreshed_at = clock_timestamp()
        where excluded.version >= known.version or known.refreshed_at < $5
        "#,
        &columns.ids,
        &columns.names as _,
        &columns.statuses as _,
        &columns.versions,
        begun,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the customers that a snapshot begun at `begun` did not have.
pub async fn forget_others(connection: &mut PgConnection, begun: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!("delete from customers_replica where refreshed_at < $1", begun).execute(connection).await?;
    Ok(done.rows_affected())
}

/// An open order of a customer who is deactivated.
pub struct Stranded {
    /// The order's id.
    pub id: Uuid,
    /// Whether it is too late to cancel it.
    pub shipped: bool,
}

/// The open orders of those of these customers who are deactivated, as far as the replica knows.
pub async fn stranded_orders(connection: &mut PgConnection, customers: &[Uuid]) -> Result<Vec<Stranded>, sqlx::Error> {
    sqlx::query_as!(
        Stranded,
        r#"
        select o.id, o.status = 'shipped' as "shipped!"
        from orders o
        join customers_replica c on c.id = o.user_id
        where o.user_id = any($1)
          and o.status in ('placed', 'paid', 'shipped')
          and c.status = 'deactivated'
        "#,
        customers,
    )
    .fetch_all(connection)
    .await
}

/// All customers who are deactivated and have open orders, as far as the replica knows.
pub async fn stranded_customers(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select c.id
        from customers_replica c
        where c.status = 'deactivated'
          and exists (select from orders o where o.user_id = c.id and o.status in ('placed', 'paid', 'shipped'))
        "#,
    )
    .fetch_all(connection)
    .await
}

/// Keeps an event that cannot be applied, in the place of one that was kept before under the same id.
pub async fn park_event(
    connection: &mut PgConnection,
    id: &str,
    r#type: &str,
    data: &str,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into orders_parked_events (id, type, data, error)
        values ($1, $2, $3, $4)
        on conflict (id) do update
        set type = excluded.type, data = excluded.data, error = excluded.error, parked_at = clock_timestamp()
        "#,
        id,
        r#type,
        data,
        error,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The events that are kept, those kept first first.
pub async fn parked_events(connection: &mut PgConnection) -> Result<Vec<Received>, sqlx::Error> {
    let rows =
        sqlx::query!("select id, type, data from orders_parked_events order by parked_at, id").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| Received { id: row.id, r#type: row.r#type, time: None, data: row.data }).collect())
}

/// How many events are kept.
pub async fn count_parked_events(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from orders_parked_events"#).fetch_one(connection).await
}

/// Keeps an event no longer.
pub async fn unpark_event(connection: &mut PgConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from orders_parked_events where id = $1", id).execute(connection).await?;
    Ok(())
}
