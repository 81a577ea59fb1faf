//! `CUSTOMERS_VIA=http`: a users service of its own for every orders service.

use std::net::TcpListener;
use std::time::Duration;

use chassis::remote::Limits;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use orders::customers::{Customers, Users};
use shared_db::Database;
use users::open_orders::OpenOrders;

use crate::support::settings;

/// Limits for a machine that has much else to do.
pub const PATIENT: Limits =
    Limits { connect: Duration::from_secs(40), attempt: Duration::from_secs(40), call: Duration::from_secs(45) };

/// What the neighbour is called in metrics and readiness.
pub const NEIGHBOUR: &str = "users";

/// Where a test tells of users.
pub const USERS: &str = "users";

/// A new database for this dial.
pub async fn database() -> TestDatabase {
    TestDatabase::create()
}

/// The port to users of a service on the database at `url`, where users is, too.
pub fn customers(url: &str) -> Customers {
    let database = Database::new(&url.replace(ORDERS_ROLE, USERS_ROLE), &settings(10)).expect("a URL");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a listener for the runtime");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
    // It ends with the test's runtime.
    let app = users::App::new(database, OpenOrders::local());
    tokio::spawn(chassis::http::serve::serve(listener, users::router(app), std::future::pending(), || {}));
    Customers::remote(Users::http(&address.into(), PATIENT))
}
