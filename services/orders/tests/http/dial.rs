//! `CUSTOMERS_VIA=local`.

use chassis::remote::Limits;
use dev::postgres::TestDatabase;
use orders::customers::{Customers, Users};

/// Where a test tells of users.
pub const USERS: &str = "users";

/// A new database for this dial.
pub async fn database() -> TestDatabase {
    TestDatabase::create()
}

/// The port to users of a service on the database at `_url`.
pub fn customers(_url: &str) -> Customers {
    // Nobody is there, and nobody is asked.
    Customers::local(Users::http(&"http://127.0.0.1:1".parse().expect("a URL"), Limits::default()))
}
