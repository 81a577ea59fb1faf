//! `CUSTOMERS_VIA=local`.

use orders::customers::Customers;

/// The port to users of a service on the database at `_url`.
pub fn customers(_url: &str) -> Customers {
    Customers::local()
}
