//! `CUSTOMERS_VIA=local` in a database of its own: the view stands before the replica, there is no table `users`, and the
//! users service has a database of its own, too. Tests write to the replica what events would.

use std::net::TcpListener;
use std::time::Duration;

use chassis::remote::Limits;
use dev::postgres::{TestDatabase, USERS_ROLE};
use orders::customers::{Customers, Users};
use shared_db::Database;
use users::open_orders::OpenOrders;

use crate::support::settings;

const PATIENT: Limits =
    Limits { connect: Duration::from_secs(40), attempt: Duration::from_secs(40), call: Duration::from_secs(45) };

/// Where a test tells of users.
pub const USERS: &str = "customers_replica";

/// A new database for this dial.
pub async fn database() -> TestDatabase {
    TestDatabase::own("orders")
}

/// The port to users. It is asked of those alone whom the replica does not know, and does not know them either.
pub fn customers(_url: &str) -> Customers {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a listener for the runtime");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
    // Both end with the test's runtime.
    tokio::spawn(async move {
        let database = TestDatabase::own("users");
        let app =
            users::App::new(Database::new(&database.url_as(USERS_ROLE), &settings(10)).expect("a URL"), OpenOrders::local());
        chassis::http::serve::serve(listener, users::router(app), std::future::pending(), || {}).await;
    });
    Customers::local(Users::http(&address.into(), PATIENT))
}
