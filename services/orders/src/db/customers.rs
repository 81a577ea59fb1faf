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

/// Stores the customers that are newer than the replica's. Each customer may be there once only.
///
/// `begun` is the begin of the snapshot that they come from. A row that no event has changed since then is replaced, too.
pub async fn store_customers(
    connection: &mut PgConnection,
    customers: &[Customer],
    begun: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/db/customers/store.sql",
        &customers.iter().map(|customer| customer.id).collect::<Vec<_>>(),
        &customers.iter().map(|customer| &*customer.name).collect::<Vec<_>>() as _,
        &customers.iter().map(|customer| &*customer.status).collect::<Vec<_>>() as _,
        &customers.iter().map(|customer| customer.version).collect::<Vec<_>>(),
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
    sqlx::query_file_as!(Stranded, "src/db/customers/stranded_orders.sql", customers,).fetch_all(connection).await
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
