//! The table `customers_replica` and the view `customers`.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::Customer;

/// The customer, by the view.
pub async fn find_customer(connection: &mut PgConnection, id: Uuid) -> Result<Option<Customer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Customer,
        r#"select id as "id!", name as "name!", status as "status!", version as "version!" from customers where id = $1"#,
        id,
    );
    row.fetch_optional(connection).await
}

/// Customers as arrays of columns, for `unnest`.
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

/// Stores the customers that are newer than the replica's. Each customer may be there once only.
pub async fn store_customers(connection: &mut PgConnection, customers: &[Customer]) -> Result<(), sqlx::Error> {
    let columns = Columns::new(customers);
    sqlx::query!(
        r#"
        insert into customers_replica as known (id, name, status, version)
        select id, name, status, version
        from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[]) as news (id, name, status, version)
        on conflict (id) do update
        set name = excluded.name, status = excluded.status, version = excluded.version, refreshed_at = clock_timestamp()
        where excluded.version > known.version
        "#,
        &columns.ids,
        &columns.names as _,
        &columns.statuses as _,
        &columns.versions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores customers of a snapshot that began at `begun`, unless an event has brought a newer version since.
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

/// Deletes the customers that a snapshot begun at `begun` did not contain.
pub async fn delete_other_customers(connection: &mut PgConnection, begun: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from customers_replica where refreshed_at < $1", begun).execute(connection).await?;
    Ok(())
}

/// An open order of a deactivated customer.
pub struct Stranded {
    /// The order's id.
    pub id: Uuid,
    /// Whether it is too late to cancel it.
    pub shipped: bool,
}

/// The open orders of these customers, where the replica has the customer as deactivated.
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

/// All customers with open orders whom the replica has as deactivated.
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
