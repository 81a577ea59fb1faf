//! Functions over the tables that run as a superuser, or as a role that reads all tables. Their owners' rights hold on both
//! sides, so a switch closes and opens the functions themselves.

use sqlx::{FromRow, PgConnection, query_as};

use super::inventory::Inventory;

/// Such a function.
#[derive(Debug, FromRow)]
pub struct Passing {
    /// Its oid.
    pub oid: i64,
    /// Its name, as `pg_identify_object` writes it.
    pub identity: String,
}

/// Lists them.
pub async fn list(connection: &mut PgConnection, inventory: &Inventory) -> Result<Vec<Passing>, sqlx::Error> {
    query_as(PASSING).bind(inventory.functions_over()).fetch_all(connection).await
}

const PASSING: &str = r"
    select p.oid::int8 as oid, i.identity::text as identity
    from pg_proc p
    join pg_roles o on o.oid = p.proowner
    cross join lateral pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    where p.oid = any ($1::int8[]::oid[])
      and p.prosecdef
      and (
          o.rolsuper
          or exists (
              select
              from pg_roles m
              where m.rolname in ('pg_read_all_data', 'pg_write_all_data')
                and pg_has_role(o.oid, m.oid, 'MEMBER')
          )
      )
    order by 2";
