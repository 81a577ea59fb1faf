//! The table `customers_replica` and the view `customers`.

use chrono::{DateTime, Utc};
use shared_db::Connection;
use uuid::Uuid;

use crate::domain::Customer;

/// The customer, by the view.
pub async fn find_customer(connection: &mut Connection, id: Uuid) -> Result<Option<Customer>, sqlx::Error> {
    let row = sqlx::query_as!(
        Customer,
        r#"select id as "id!", name as "name!", status as "status!", version as "version!" from customers where id = $1"#,
        id,
    );
    row.fetch_optional(connection).await
}

/// Stores the customers that are newer than the replica's. Each customer may be there once only.
pub async fn store_customers(connection: &mut Connection, customers: &[Customer]) -> Result<(), sqlx::Error> {
    let Columns { ids, names, statuses, versions } = Columns::new(customers);
    sqlx::query_file!("src/db/customers/store.sql", &ids, &names as _, &statuses as _, &versions,)
        .execute(connection)
        .await?;
    Ok(())
}

/// Stores the customers of a snapshot that began at `begun`. A row that no event has changed since then is replaced, too,
/// even by an older version.
pub async fn refill_customers(
    connection: &mut Connection,
    customers: &[Customer],
    begun: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let Columns { ids, names, statuses, versions } = Columns::new(customers);
    sqlx::query_file!("src/db/customers/refill.sql", &ids, &names as _, &statuses as _, &versions, begun,)
        .execute(connection)
        .await?;
    Ok(())
}

/// Customers as arrays, one for each column.
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
            names: customers.iter().map(|customer| &*customer.name).collect(),
            statuses: customers.iter().map(|customer| &*customer.status).collect(),
            versions: customers.iter().map(|customer| customer.version).collect(),
        }
    }
}

/// Deletes the customers that a snapshot begun at `begun` did not contain.
pub async fn delete_other_customers(connection: &mut Connection, begun: DateTime<Utc>) -> Result<(), sqlx::Error> {
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
pub async fn stranded_orders(connection: &mut Connection, customers: &[Uuid]) -> Result<Vec<Stranded>, sqlx::Error> {
    sqlx::query_file_as!(Stranded, "src/db/customers/stranded_orders.sql", customers,).fetch_all(connection).await
}

/// All customers with open orders whom the replica has as deactivated.
pub async fn stranded_customers(connection: &mut Connection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select c.id
        from customers_replica c
        where c.status = 'deactivated'
          and exists (select 1 from orders o where o.user_id = c.id and o.status in ('placed', 'paid', 'shipped'))
        "#,
    )
    .fetch_all(connection)
    .await
}
