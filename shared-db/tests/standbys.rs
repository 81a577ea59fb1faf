//! Reads from a standby, a second server with streaming replication.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use std::time::Duration;

use dev::address::{Address, port};
use dev::postgres::{Cluster, ORDERS_ROLE, TestDatabase, connect, with_role};
use dev::wait::until;
use shared_db::{Database, Ending, check_schema, run, watch_standbys};
use sqlx::{AssertSqlSafe, PgConnection};

use moves::{SWITCHES, execute, settings};

#[allow(dead_code, reason = "the other test program moves tables")]
mod moves;

/// So long that no read falls back because of a busy machine.
const MAX_LAG: Duration = Duration::from_secs(60);

fn end(connection: &mut PgConnection) -> Ending<'_> {
    Box::pin(async move {
        let end = sqlx::query_as::<_, (i64, i64)>(
            "select order_event_epoch(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1",
        );
        end.fetch_one(connection).await.map(Into::into)
    })
}

fn name(database: &TestDatabase) -> &str {
    database.url().rsplit_once('/').expect("a database").1
}

/// The same database on another server.
fn on(server: &Cluster, database: &TestDatabase) -> String {
    with_role(&server.url(name(database)), ORDERS_ROLE)
}

/// Which database answers a read, and whether it is on a standby.
async fn answered_by(database: &Database) -> (String, bool) {
    run!(database, None, connection => ask(connection)).await.expect("answered")
}

async fn ask(connection: &mut PgConnection) -> Result<(String, bool), sqlx::Error> {
    sqlx::query_as("select current_database()::text, pg_is_in_recovery()").fetch_one(connection).await
}

async fn until_on_standby(database: &Database) {
    until("reads come from the standby", async || answered_by(database).await.1).await;
}

/// On a standby it would take a minute. It uses the table orders, and is so long that an error of it is slow to log.
async fn take_long(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const STATEMENT: &str = "
        select case when pg_is_in_recovery() then pg_sleep(60)::text is not null else false end
        from orders
        right join (values (1)) one on false";
    let comment = "-".repeat(1 << 24);
    sqlx::query_scalar(AssertSqlSafe(format!("{STATEMENT} /*{comment}*/"))).fetch_one(connection).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_the_standbys_recovery_cancels_is_answered_by_the_primary() {
    let primary =
        Cluster::temporary_with(&["max_standby_streaming_delay=0", "log_min_error_statement=error"]).expect("a server");
    let source = TestDatabase::on(&primary);
    let standby = primary.standby().expect("a standby");
    let settings = settings("cancelled", 2);
    let database = Database::new(&source.url_as(ORDERS_ROLE), &settings).expect("a URL");
    let database = database.reading(&on(&standby, &source), MAX_LAG, end, &settings).expect("a URL");
    let watch = tokio::spawn(watch_standbys(database.clone()));
    until_on_standby(&database).await;

    let reading = tokio::spawn({
        let database = database.clone();
        async move { run!(database, None, connection => take_long(connection)).await }
    });
    let mut superuser = connect(&standby.url(name(&source))).await.expect("the standby answers");
    let sleeping = "select exists (select from pg_stat_activity where wait_event = 'PgSleep')";
    dev::postgres::until(&mut superuser, sleeping).await;
    execute(&mut source.owner().await, "begin; lock table orders in access exclusive mode; commit").await;
    assert!(!reading.await.expect("it ends").expect("answered"), "by the primary");
    // A cancelled statement says nothing against the standby, and neither does a connection that ends with it: while the
    // server writes the error to its log, its recovery goes on cancelling, which then ends the connection.
    assert!(answered_by(&database).await.1);
    watch.abort();
}

/// A write, which changes nothing.
async fn write(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("update orders set version = version where false").execute(connection).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_a_failover_left_on_a_standby_finds_the_primary() {
    let primary = Cluster::temporary().expect("a server");
    let source = TestDatabase::on(&primary);
    let standby = primary.standby().expect("a standby");
    // Two processes: one writes, and one only reads.
    let address = Address::start(port(&standby.url("x"))).await.expect("a port");
    let process = |name| {
        let url = address.url(&source.url_as(ORDERS_ROLE));
        Database::new(&url, &settings(name, 3)).expect("a URL")
    };
    let (writing, reading) = (process("writing"), process("reading"));
    until("the standby has the schema", async || check_schema(&reading).await.is_ok()).await;
    for database in [&writing, &reading] {
        assert!(answered_by(database).await.1, "on the standby");
    }
    let refused = run!(writing, connection => write(connection)).await.expect_err("a standby takes no write");
    assert!(refused.is_unavailable(), "{refused}");

    // The sessions on the standby stay.
    address.lead_new_to(port(&primary.url("x")));
    until("writes come to the primary", async || run!(writing, connection => write(connection)).await.is_ok()).await;
    until("checks lead reads to the primary", async || {
        check_schema(&reading).await.expect("ready");
        !answered_by(&reading).await.1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_standby_of_the_database_where_the_tables_are_is_read() {
    let primary = Cluster::temporary().expect("a server");
    let (source, target) = (TestDatabase::on(&primary), TestDatabase::on(&primary));
    for side in [&source, &target] {
        execute(&mut side.owner().await, SWITCHES).await;
    }
    let standby = primary.standby().expect("a standby");
    let process = |read: &TestDatabase| {
        let settings = settings("orders", 2);
        let database = Database::new(&source.url_as(ORDERS_ROLE), &settings).expect("a URL");
        let database = database.moving("orders", &target.url_as(ORDERS_ROLE), &settings).expect("a URL");
        let database = database.reading(&on(&standby, read), MAX_LAG, end, &settings).expect("a URL");
        (tokio::spawn(watch_standbys(database.clone())), database)
    };
    // One has a standby of the source, and the other one of the target.
    let ((_, left), (_, entered)) = (process(&source), process(&target));
    until_on_standby(&left).await;
    assert_eq!(answered_by(&left).await, (name(&source).to_owned(), true));
    assert_eq!(answered_by(&entered).await, (name(&source).to_owned(), false));

    let switch = "insert into splitctl.switches (owner, generation, side) values ('orders', 1, 'target')";
    execute(&mut source.owner().await, switch).await;
    until("the process has followed", async || answered_by(&left).await.0 == name(&target)).await;
    until_on_standby(&entered).await;
    for _ in 0..100 {
        assert_eq!(answered_by(&left).await, (name(&target).to_owned(), false), "the standby of the source is not read");
        assert_eq!(answered_by(&entered).await, (name(&target).to_owned(), true));
    }
}
