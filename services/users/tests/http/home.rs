//! The shared database: what orders does is seen in its own table.

use dev::postgres::TestDatabase;

/// A new database.
pub fn database() -> TestDatabase {
    TestDatabase::create()
}

/// A statement that inserts an order of the user with this id, in `status`.
pub fn insert_order(user: &str, status: &str) -> String {
    format!(
        "insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
         values (gen_random_uuid(), '{user}', '{status}', 'EUR', 700, now(), now(), 1)",
    )
}

/// A statement that delivers all orders of the user with this id.
pub fn deliver_orders(user: &str) -> String {
    format!("update orders set status = 'delivered' where user_id = '{user}'")
}
