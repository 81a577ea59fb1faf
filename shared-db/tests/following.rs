//! A service's process follows its tables to another database and back.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use dev::address::{Address, port};
use dev::postgres::{ORDERS_ROLE, TestDatabase};
use shared_db::{Database, DatabaseError, Side, Switch, alone, run, stay_warm};
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use moves::{Move, execute, number, settings, until};

mod moves;

/// Which database answers, and whether it does.
async fn answered_by(database: &Database) -> Result<String, DatabaseError> {
    run!(database, connection => name(connection)).await
}

async fn name(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_database()::text from orders right join (values (1)) one on false")
        .fetch_one(connection)
        .await
}

fn name_of(moved: &Move, side: Side) -> String {
    moved.on(side).url().rsplit_once('/').expect("a database").1.to_owned()
}

/// The claim that it was refused for a right it lacks.
#[track_caller]
fn assert_denied(outcome: Result<String, DatabaseError>) {
    match outcome {
        Err(DatabaseError::Unavailable(sqlx::Error::Database(error))) if error.code().as_deref() == Some("42501") => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_process_turns_as_often_as_the_tables_move() {
    let mut moved = Move::begin().await;
    let (busy, idle) = (moved.database("busy", 2), moved.database("idle", 2));
    for database in [&busy, &idle] {
        assert_eq!(answered_by(database).await.expect("answered"), name_of(&moved, Side::Source));
    }
    assert_eq!(busy.known_switch(), Some(Switch { generation: 0, side: Side::Source }));
    for generation in 1..=5 {
        moved.switch("").await;
        assert_eq!(answered_by(&busy).await.expect("answered"), name_of(&moved, moved.side));
        assert_eq!(busy.known_switch(), Some(Switch { generation, side: moved.side }));
    }
    // One who was asleep all the time follows at once.
    assert_eq!(answered_by(&idle).await.expect("answered"), name_of(&moved, Side::Target));
    assert_eq!(idle.known_switch(), busy.known_switch());
}

/// Two lines or none.
async fn add_two_lines(connection: &mut PgConnection, between: &mpsc::UnboundedSender<()>) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Reads what stays readable, so that the transaction is under way when it is refused.
    sqlx::query("select version from _sqlx_migrations").execute(&mut *transaction).await?;
    between.send(()).expect("the test listens");
    add_line(&mut transaction).await?;
    add_line(&mut transaction).await?;
    transaction.commit().await
}

#[tokio::test]
async fn a_transaction_that_is_refused_is_run_again_as_a_whole() {
    let mut moved = Move::begin().await;
    let database = moved.database("orders", 1);
    answered_by(&database).await.expect("answered");
    moved.switch("").await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    run!(database, connection => add_two_lines(connection, &begun)).await.expect("done");
    assert_eq!(has_begun.len(), 2);
    has_begun.close();
    assert_eq!(number(&mut moved.owner(Side::Target).await, "select count(*) from orders_cursors").await, 2);
    assert_eq!(number(&mut moved.owner(Side::Source).await, "select count(*) from orders_cursors").await, 0);
}

#[tokio::test]
async fn a_process_that_slept_through_a_switch_does_not_take_a_side_that_is_opened_for_the_next_one() {
    let mut moved = Move::begin().await;
    moved.switch("").await;
    let sleeper = moved.database("sleeper", 2);
    assert_eq!(answered_by(&sleeper).await.expect("answered"), name_of(&moved, Side::Target));
    moved.switch("").await;
    // What a switch waits for at least, so that whoever has not heard of the one before asks.
    tokio::time::sleep(Duration::from_secs(2)).await;
    moved.open(Side::Target).await;
    assert_eq!(answered_by(&sleeper).await.expect("answered"), name_of(&moved, Side::Source));
}

#[tokio::test]
async fn a_right_that_is_missing_for_another_reason_stays_an_error() {
    let mut moved = Move::begin().await;
    let database = moved.database("orders", 2);
    moved.close(Side::Source).await;
    assert_denied(answered_by(&database).await);
    moved.open(Side::Source).await;
    answered_by(&database).await.expect("answered");

    // Where it has turned already, and where nobody ever heard of a move.
    moved.switch("").await;
    answered_by(&database).await.expect("answered");
    moved.close(Side::Target).await;
    assert_denied(answered_by(&database).await);
    execute(&mut moved.owner(Side::Target).await, "drop schema splitctl cascade").await;
    assert_denied(answered_by(&database).await);
    // Another service's switch is not this one's.
    execute(&mut moved.owner(Side::Source).await, "update splitctl.switches set owner = 'users'").await;
    assert_denied(answered_by(&moved.database("orders", 2)).await);
}

#[tokio::test]
async fn before_a_move_no_question_for_a_switch_is_an_error_of_the_server() {
    let moved = Move::begin().await;
    let mut owner = moved.owner(Side::Source).await;
    execute(&mut owner, "drop schema splitctl cascade").await;
    let failed = "select xact_rollback from pg_stat_database where datname = current_database()";
    let before = number(&mut owner, failed).await;
    let database = moved.database("unmoved", 1);
    answered_by(&database).await.expect("answered");
    // It asks anew when it was idle for a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    answered_by(&database).await.expect("answered");
    drop(database);
    // A session counts its last statements at its end.
    until(&mut owner, "select count(*) from pg_stat_activity where application_name = 'unmoved'", 0).await;
    assert_eq!(number(&mut owner, failed).await, before);
}

#[tokio::test]
async fn a_new_process_finds_the_tables_wherever_a_move_has_got_to() {
    let mut moved = Move::begin().await;
    // The target is open before anybody is sent there.
    moved.open(Side::Target).await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Source));
    moved.switch("").await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Target));
    // A rollback has opened the source, and was ended before it said so.
    moved.open(Side::Source).await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Target));
    moved.switch("").await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Source));
    moved.switch("").await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Target));
    // No move has ever begun, and the target need not be there.
    execute(&mut moved.owner(Side::Source).await, "drop schema splitctl cascade").await;
    moved.open(Side::Source).await;
    assert_eq!(answered_by(&moved.database("orders", 1)).await.expect("answered"), name_of(&moved, Side::Source));
}

#[tokio::test]
async fn a_process_that_cannot_ask_both_serves_nothing_and_asks_again() {
    let mut moved = Move::begin().await;
    moved.switch("").await;
    let database = moved.database("orders", 1);
    let target = name_of(&moved, Side::Target);
    let mut owner = moved.owner(Side::Source).await;
    execute(&mut owner, &format!("alter database {target} rename to {target}_away")).await;
    let error = answered_by(&database).await.expect_err("the target may have been left since");
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(database.known_switch(), None);
    execute(&mut owner, &format!("alter database {target}_away rename to {target}")).await;
    assert_eq!(answered_by(&database).await.expect("answered"), target);
}

/// Counted by the name of the process, which is the test's.
#[tokio::test]
async fn the_other_side_is_kept_warm_and_what_is_left_is_closed() {
    let mut moved = Move::begin().await;
    let database = moved.database("warm", 6);
    let mut owner = moved.owner(Side::Source).await;
    let sessions = |side| {
        let database = name_of(&moved, side);
        format!("select count(*) from pg_stat_activity where datname = '{database}' and application_name = 'warm'")
    };
    let (on_source, on_target) = (sessions(Side::Source), sessions(Side::Target));
    // Six at once.
    let at_once = async |database: &Database| {
        let held = (0..6).map(|_| {
            let database = database.clone();
            tokio::spawn(async move { run!(database, connection => asleep(connection)).await })
        });
        for held in held.collect::<Vec<_>>() {
            held.await.expect("it ends").expect("answered");
        }
    };
    at_once(&database).await;
    assert_eq!((number(&mut owner, &on_source).await, number(&mut owner, &on_target).await), (6, 0));
    let warm = tokio::spawn(stay_warm(database.clone()));
    until(&mut owner, &on_target, 6).await;

    // Without what keeps it warm, none is left at all, the one included that was in use meanwhile.
    warm.abort();
    execute(&mut owner, "select pg_advisory_lock(1)").await;
    let in_use = tokio::spawn({
        let database = database.clone();
        async move { run!(database, connection => waiting(connection)).await }
    });
    until(&mut owner, &format!("{on_source} and wait_event = 'advisory'"), 1).await;
    moved.switch("").await;
    at_once(&database).await;
    until(&mut owner, &on_source, 1).await;
    execute(&mut owner, "select pg_advisory_unlock(1)").await;
    in_use.await.expect("it ends").expect("answered");
    until(&mut owner, &on_source, 0).await;
    assert_eq!(number(&mut owner, &on_target).await, 6);
    let warm = tokio::spawn(stay_warm(database.clone()));
    until(&mut owner, &on_source, 6).await;

    // With it, what is left stays open: neither ends nor logins cost the servers anything when requests need them. It is
    // pinged later than it would have been closed.
    let number_of = |sessions: &str| sessions.replace("count(*)", "sum(pid)");
    moved.switch("").await;
    at_once(&database).await;
    let before = number(&mut owner, &number_of(&on_target)).await;
    let later = format!("{on_target} and state_change > (select max(at) from splitctl.switches) + interval '2.5 s'");
    until(&mut moved.owner(Side::Target).await, &later, 6).await;
    assert_eq!(number(&mut owner, &number_of(&on_target)).await, before);
    warm.abort();

    // A process that has nowhere to go keeps nothing.
    stay_warm(Database::new(moved.source.url(), &moves::settings("still", 1)).expect("a URL")).await;
}

/// A read that was under way at the switch counts, and the request that has followed it.
#[tokio::test]
async fn a_process_reports_how_long_requests_waited_for_a_switch() {
    let mut moved = Move::begin().await;
    let database = moved.database("reporting", 3);
    answered_by(&database).await.expect("answered");
    let warm = tokio::spawn(stay_warm(database.clone()));
    let mut listener = PgListener::connect(moved.target.url()).await.expect("a listener");
    listener.listen("splitctl_waits").await.expect("it listens");
    let mut owner = moved.owner(Side::Source).await;
    execute(&mut owner, "select pg_advisory_lock(1)").await;
    let in_use = tokio::spawn({
        let database = database.clone();
        async move { run!(database, connection => waiting(connection)).await }
    });
    let blocked = "select count(*) from pg_stat_activity where application_name = 'reporting' and wait_event = 'advisory'";
    until(&mut owner, blocked, 1).await;
    moved.switch("").await;
    answered_by(&database).await.expect("answered");
    execute(&mut owner, "select pg_advisory_unlock(1)").await;
    in_use.await.expect("it ends").expect("answered");
    let heard = listener.recv().await.expect("a report");
    assert_eq!(heard.payload(), r#"{"owner":"orders","generation":1}"#);
    let heard = listener.recv().await.expect("a report");
    assert!(heard.payload().starts_with(r#"{"owner":"orders","generation":1,"requests":2,"longest_ms":"#), "{heard:?}");
    warm.abort();
}

async fn asleep(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_sleep(0.2) from orders right join (values (1)) one on false").execute(connection).await.map(drop)
}

async fn waiting(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock_shared(1) from orders right join (values (1)) one on false")
        .execute(connection)
        .await
        .map(drop)
}

/// Adds a line, and says where the one who works has got to.
async fn work(database: &Database, begun: &mpsc::UnboundedSender<()>) -> Infallible {
    begun.send(()).expect("the test listens");
    loop {
        let line = run!(database, connection => add_line(connection)).await;
        line.expect("answered");
        tokio::task::yield_now().await;
    }
}

async fn add_line(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // In one message: what is prepared first may be given up before it is executed.
    sqlx::raw_sql("insert into orders_cursors (log, cursor) values (gen_random_uuid()::text, '')")
        .execute(connection)
        .await
        .map(drop)
}

#[tokio::test]
async fn work_that_one_process_does_alone_goes_on_when_the_lock_is_held_where_the_tables_are() {
    const LINES: &str = "select count(*) from orders_cursors";
    const LOCKS: &str = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                         where d.datname = current_database() and l.locktype = 'advisory' and l.granted";
    let mut moved = Move::begin().await;
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let database = Arc::new(moved.database("alone", 3));
    let worker = tokio::spawn({
        let (database, begun) = (database.clone(), begun.clone());
        async move { alone(&database, "the work", || work(&database, &begun)).await }
    });
    has_begun.recv().await.expect("it begins");
    // So that the next statement could be sent there at once.
    let warm = tokio::spawn(stay_warm(database.as_ref().clone()));
    let open = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'alone'";
    until(&mut moved.owner(Side::Target).await, open, 3).await;

    // Another process has the lock there already.
    let mut other = moved.owner(Side::Target).await;
    execute(&mut other, "select pg_advisory_lock(hashtextextended('the work', 0))").await;
    moved.switch("").await;
    let (mut source, mut target) = (moved.owner(Side::Source).await, moved.owner(Side::Target).await);
    until(&mut source, LOCKS, 0).await;
    assert_eq!(database.known_switch().map(|known| known.side), Some(Side::Target));
    // What had been refused was not run again, as long as the lock is not held.
    assert_eq!(number(&mut target, LINES).await, number(&mut source, LINES).await);
    assert!(has_begun.is_empty());

    let lines = number(&mut target, LINES).await;
    execute(&mut other, "select pg_advisory_unlock(hashtextextended('the work', 0))").await;
    has_begun.recv().await.expect("it begins again");
    until(&mut target, &format!("select least(count(*), {}) from orders_cursors", lines + 3), lines + 3).await;
    assert_eq!(number(&mut target, LOCKS).await, 1);
    worker.abort();
    warm.abort();
}

/// Says that it has begun, and does nothing else.
async fn only_begin(begun: &mpsc::UnboundedSender<()>) -> Infallible {
    begun.send(()).expect("somebody counts");
    pending().await
}

#[tokio::test]
async fn a_process_whose_session_leads_nowhere_still_takes_over_the_work() {
    const WAITING: &str = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'second' and query like '%pg_try_advisory_lock%'";
    let shared = TestDatabase::create();
    let url = shared.url_as(ORDERS_ROLE);
    let address = Address::start(port(&url)).await.expect("a port");
    let (begun, mut has_begun) = mpsc::unbounded_channel();
    let process = |name, url: &str| {
        let (database, begun) = (Database::new(url, &settings(name, 1)).expect("a URL"), begun.clone());
        tokio::spawn(async move { alone(&database, "the work", || only_begin(&begun)).await })
    };
    let first = process("first", &url);
    has_begun.recv().await.expect("it begins");
    let second = process("second", &address.url(&url));
    until(&mut shared.owner().await, WAITING, 1).await;
    address.silence();
    first.abort();
    has_begun.recv().await.expect("the second one begins");
    second.abort();
}
