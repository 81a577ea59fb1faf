//! Prepared statements that no longer fit the schema, and statements that the server does not support.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use std::time::Duration;

use dev::postgres::{ORDERS_ROLE, TestDatabase};
use shared_db::{Database, DatabaseError, Settings, run};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

const CURSORS: &str = "select cursor from orders_cursors";

/// One connection, so that a test can look at its statements.
fn database(on: &TestDatabase) -> Database {
    let settings = Settings::new("preparing", 1).with_patience(Duration::from_secs(40));
    Database::new(&on.url_as(ORDERS_ROLE), &settings).expect("a URL")
}

async fn cursors(connection: &mut PgConnection) -> Result<usize, sqlx::Error> {
    Ok(sqlx::query(CURSORS).fetch_all(connection).await?.len())
}

/// How many statements the connection has prepared in its life, by the driver's name of the newest.
async fn prepared(database: &Database) -> u32 {
    let name = run!(database, connection => newest_name(connection)).await.expect("answered");
    name.rsplit_once('_').expect("a number").1.parse().expect("a number")
}

async fn newest_name(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    // By the simple protocol, which prepares nothing.
    let names = "select name from pg_prepared_statements order by prepare_time desc limit 1";
    Ok(connection.fetch_one(sqlx::raw_sql(names)).await?.get(0))
}

#[tokio::test]
async fn a_statement_is_prepared_once_more_after_each_change_of_the_schema() {
    let on = TestDatabase::create();
    let (database, mut owner) = (database(&on), on.owner().await);
    run!(database, connection => cursors(connection)).await.expect("answered");
    let before = prepared(&database).await;
    for (change, kind) in ["varchar(90)", "text", "varchar(80)"].into_iter().enumerate() {
        let alter = format!("alter table orders_cursors alter column cursor type {kind}");
        owner.execute(AssertSqlSafe(alter)).await.expect("altered");
        run!(database, connection => cursors(connection)).await.expect("answered");
        assert_eq!(prepared(&database).await, before + change as u32 + 1, "{kind}");
    }
}

#[tokio::test]
async fn a_statement_that_the_server_does_not_support_is_run_once() {
    let on = TestDatabase::create();
    let (database, mut owner) = (database(&on), on.owner().await);
    // A rollback takes no number of a sequence back.
    let unsupported = "create sequence calls; grant usage on calls to orders_svc;
                       create function unsupported() returns integer language plpgsql as $$
                       begin perform nextval('public.calls'); raise exception 'no' using errcode = '0A000'; end $$";
    owner.execute(sqlx::raw_sql(unsupported)).await.expect("a function");
    let refused = run!(database, connection => call(connection)).await.expect_err("it is not supported");
    assert!(matches!(refused, DatabaseError::Statement(_)), "{refused:?}");
    let calls = owner.fetch_one("select last_value from calls").await.expect("a number");
    assert_eq!(calls.get::<i64, _>(0), 1);
}

async fn call(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select unsupported()").fetch_one(connection).await
}

/// Runs a statement of no result, and says on which connection.
async fn process(connection: &mut PgConnection, statement: &str) -> Result<i32, sqlx::Error> {
    connection.execute(AssertSqlSafe(statement.to_owned())).await?;
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(connection).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_begins_late_and_is_given_up_costs_its_own_connection_alone() {
    let on = TestDatabase::create();
    let mut settings = Settings::new("late", 2).with_patience(Duration::from_secs(6));
    settings.acquire_timeout = Duration::from_secs(40);
    let database = Database::new(&on.url_as(ORDERS_ROLE), &settings).expect("a URL");
    let begin = |statement| {
        let database = database.clone();
        tokio::spawn(async move { run!(database, connection => process(connection, statement)).await })
    };
    let mut owner = on.owner().await;
    owner.execute("select pg_advisory_lock(1)").await.expect("locked");
    let waiting = "select count(*) = 2 from pg_stat_activity
        where datname = current_database() and application_name = 'late' and wait_event = 'advisory'";
    // Both connections are in use for a second, so a third statement has half a second less than the server gives it.
    let first = [(); 2].map(|()| begin("select pg_advisory_lock_shared(1)"));
    dev::postgres::until(&mut owner, waiting).await;
    let late = begin("select pg_sleep(5.95)");
    tokio::time::sleep(Duration::from_secs(1)).await;
    owner.execute("select pg_advisory_unlock(1)").await.expect("unlocked");
    let mut known = Vec::new();
    for locked in first {
        known.push(locked.await.expect("joined").expect("locked"));
    }
    let given_up = late.await.expect("joined").expect_err("its time is up");
    assert!(given_up.is_unavailable(), "{given_up}");
    let kept = run!(database, connection => process(connection, "select 1")).await.expect("answered");
    assert!(known.contains(&kept), "another connection was closed, too");
}
