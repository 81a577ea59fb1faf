//! `CUSTOMERS_VIA=local`, with the replica behind the view. Tests write to the table `users` as if they were that service; a
//! trigger stands for the events.

use std::net::TcpListener;
use std::time::Duration;

use chassis::remote::Limits;
use dev::postgres::{ORDERS_ROLE, TestDatabase, USERS_ROLE};
use orders::customers::{Customers, Users};
use shared_db::Database;
use sqlx::Executor;
use users::open_orders::OpenOrders;

use crate::support::settings;

const PATIENT: Limits =
    Limits { connect: Duration::from_secs(40), attempt: Duration::from_secs(40), call: Duration::from_secs(45) };

const EVENTS_AT_ONCE: &str = "
    create function bring_the_replica_on() returns trigger language plpgsql security definer as $$
    begin
        insert into public.customers_replica values (new.id, new.name, new.status, new.version)
        on conflict (id) do update set name = new.name, status = new.status, version = new.version;
        return null;
    end $$;
    create trigger bring_the_replica_on after insert or update on users
        for each row execute function bring_the_replica_on()";

/// Where a test tells of users.
pub const USERS: &str = "users";

/// A new database for this dial.
pub async fn database() -> TestDatabase {
    let database = TestDatabase::create();
    let mut owner = database.owner().await;
    owner.execute(include_str!("../../../../migrations/replicas/customers.replace.sql")).await.expect("the replica is used");
    owner.execute(EVENTS_AT_ONCE).await.expect("a trigger");
    database
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
    Customers::local(Users::http(&address.into(), PATIENT))
}
