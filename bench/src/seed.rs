//! Fills a new database by SQL, since the services would need an hour.

use std::time::Instant;

use anyhow::{Context, Result};
use dev::postgres::{Cluster, ORDERS_ROLE, USERS_ROLE, allow_login, connect, create_database};
use shared_db::MIGRATOR;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::jobs::{ACTIVE_USERS, FIRST, ID_PREFIX, ORDERS, REGULARS, USERS};

pub const DATABASE: &str = "bench";

/// Creates the database, its schema and its rows, and lets the services' roles log in.
pub async fn seed(cluster: &Cluster) -> Result<()> {
    let mut owner = create(cluster).await?;
    let numbers = [("users", USERS), ("active_users", ACTIVE_USERS), ("regulars", REGULARS), ("orders", ORDERS)];
    for (what, statement) in STEPS {
        let started = Instant::now();
        fill(&mut owner, statement, &numbers).await.with_context(|| format!("seeding, {what}"))?;
        eprintln!("seeding: {what} ({:.1} s)", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Creates the database and its schema, and lets the services' roles log in: a session for the rows.
pub async fn create(cluster: &Cluster) -> Result<PgConnection> {
    create_database(&mut connect(&cluster.url("postgres")).await?, DATABASE).await?;
    let mut owner = connect(&cluster.url(DATABASE)).await?;
    MIGRATOR.run(&mut owner).await.context("the migrations cannot be applied")?;
    for role in [USERS_ROLE, ORDERS_ROLE] {
        allow_login(&mut owner, role, cluster.password()).await?;
    }
    // Switches off triggers and foreign keys: these statements make valid rows.
    owner.execute("set session_replication_role = replica; set timezone = 'UTC'").await?;
    Ok(owner)
}

/// Runs a statement. `{first}` and the like stand for the numbers of the jobs and for these.
pub async fn fill(owner: &mut PgConnection, statement: &str, numbers: &[(&str, u64)]) -> Result<()> {
    let statement = statement.replace("{id_prefix}", ID_PREFIX).replace("{first}", &FIRST.to_string());
    let replace =
        |statement: String, (name, number): &(&str, u64)| statement.replace(&format!("{{{name}}}"), &number.to_string());
    owner.execute(AssertSqlSafe(numbers.iter().fold(statement, replace))).await?;
    Ok(())
}

/// What each statement fills, and the statement.
const STEPS: [(&str, &str); 8] = [
    ("users", include_str!("seed/users.sql")),
    ("their events", include_str!("seed/user_events.sql")),
    ("items", include_str!("seed/items.sql")),
    ("orders", include_str!("seed/orders.sql")),
    ("their events", include_str!("seed/order_events.sql")),
    ("vacuum, analyze", "vacuum analyze"),
    ("checkpoint", "checkpoint"),
    ("the cache", include_str!("seed/cache.sql")),
];
