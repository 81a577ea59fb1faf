//! A database of users' own: what orders does is heard of in the replica. Tests write there what events would.

use dev::postgres::TestDatabase;

/// A new database.
pub fn database() -> TestDatabase {
    TestDatabase::own("users")
}

/// A statement that inserts the news of an order of the user with this id, in `status`.
pub fn insert_order(user: &str, status: &str) -> String {
    format!(
        "insert into open_orders_replica (order_id, user_id, is_open, version)
         values (gen_random_uuid(), '{user}', '{status}' in ('placed', 'paid', 'shipped'), 1)",
    )
}

/// A statement that brings the news that all orders of the user with this id have been delivered.
pub fn deliver_orders(user: &str) -> String {
    format!("update open_orders_replica set is_open = false, version = version + 1 where user_id = '{user}'")
}
