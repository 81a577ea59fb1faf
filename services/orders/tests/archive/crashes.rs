//! The program is killed, or its disk is full: every event is in the log, in a file, or in both.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dev::postgres::until;
use dev::wait;
use sqlx::Executor;

use crate::program::{archive, archived, check_orders, command, grow_old, logged, run, until_shown};
use crate::support::{Service, execute, follow, id, next, value};

/// Old orders, each with three events, made by SQL.
async fn make_old_orders(service: &Service, count: usize) {
    let mut owner = service.database.owner().await;
    let orders = format!(
        "set timezone = 'UTC';
         insert into orders (id, user_id, status, currency, total_minor, placed_at, updated_at, version)
         select gen_random_uuid(), '{}', 'shipped', 'EUR', 700, t, t, 3
         from (select timestamptz '2020-01-01' + n * interval '1 second' as t from generate_series(1, {count}) n) times;
         insert into order_items select id, 1, 'tea', 2, 350 from orders;
         insert into order_events (order_id, version, type, data, occurred_at)
         select id, v, format('order.%s.v1', (array['placed', 'paid', 'shipped'])[v]),
             jsonb_build_object(
                 'id', id, 'user_id', user_id, 'status', (array['placed', 'paid', 'shipped'])[v], 'currency', 'EUR',
                 'items', '[{{\"line_no\": 1, \"sku\": \"tea\", \"quantity\": 2, \"unit_price_minor\": 350}}]'::jsonb,
                 'total_minor', 700, 'placed_at', placed_at, 'updated_at', updated_at, 'version', v),
             updated_at
         from orders cross join generate_series(1, 3) v
         order by v, id",
        service.user,
    );
    owner.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(orders))).await.expect("made");
    until_shown(service).await;
}

fn start(service: &Service, folder: &Path) -> Child {
    let arguments = ["--older-than", "400d", "--to", &folder.display().to_string()];
    command(service, &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Waits until the server has noticed that the program is gone.
async fn until_gone(service: &Service) {
    let gone = "select not exists (
                    select from pg_stat_activity
                    where datname = current_database() and application_name = 'orders events')";
    until(&mut service.database.owner().await, gone).await;
}

fn written(folder: &Path) -> u64 {
    folder.read_dir().expect("a folder").map(|file| file.expect("a file").metadata().expect("a size").len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_the_lines_are_on_the_disk_it_has_taken_nothing_away() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    service.place_and(&["pay", "ship"]).await;
    grow_old(&service).await;
    let before = logged(&service).await;

    // Another archive is running.
    let mut other = service.database.owner().await;
    other.execute("begin; select from archive_order_events(now(), 0)").await.expect("the mark is locked");
    let mut program = start(&service, folder.path());
    service_waits(&service, "Lock").await;
    program.kill().expect("killed");
    program.wait().expect("it ended");
    other.execute("rollback").await.expect("rolled back");
    until_gone(&service).await;
    assert_eq!((logged(&service).await, written(folder.path())), (before.clone(), 0));

    // The commit waits for the test.
    let mut gate = service.database.owner().await;
    execute(
        &mut gate,
        "create function wait_for_test() returns trigger language plpgsql as
             'begin perform pg_advisory_xact_lock(7); return null; end';
         create constraint trigger gate after delete on order_events deferrable initially deferred
             for each row execute function wait_for_test();
         select pg_advisory_lock(7)",
    )
    .await;
    let mut program = start(&service, folder.path());
    service_waits(&service, "Lock").await;
    assert_eq!(archived(folder.path()).len(), 2, "the lines are on the disk before the commit");
    program.kill().expect("killed");
    assert_eq!(program.wait().expect("it ended").signal(), Some(9));
    execute(&mut gate, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'orders events'")
        .await;
    execute(&mut gate, "select pg_advisory_unlock(7)").await;
    until_gone(&service).await;
    assert_eq!(logged(&service).await, before);

    execute(&mut gate, "drop trigger gate on order_events").await;
    archive(&service, folder.path());
    assert_eq!(logged(&service).await, before[2..]);
    assert_eq!(archived(folder.path()).len(), 2, "the same lines, in a second file");
}

async fn service_waits(service: &Service, kind: &str) {
    let waits = format!(
        "select exists (
             select from pg_stat_activity
             where datname = current_database() and application_name = 'orders events' and wait_event_type = '{kind}')"
    );
    until(&mut service.database.owner().await, &waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_stays_in_the_log() {
    let (service, folder) = (Service::start().await, tempfile::tempdir().expect("a folder"));
    make_old_orders(&service, 400).await;
    let before = logged(&service).await;
    let nowhere = folder.path().join("nowhere");
    let ran = run(&service, &["--older-than", "400d", "--to", &nowhere.display().to_string()]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains(&*nowhere.display().to_string()) && ran.err.contains("No such file"), "{}", ran.err);
    assert_eq!(logged(&service).await, before);

    // No file may be larger than 64 KiB: the first batch has more.
    let program = command(&service, &["--older-than", "400d", "--to", &folder.path().display().to_string()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 128; trap '' XFSZ; exec \"$@\"", "sh"]).arg(program.get_program());
    limited.args(program.get_args()).env_clear().current_dir("/");
    limited.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().expect("sh runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains(".jsonl") && err.contains("too large"), "{err}");
    assert_eq!(logged(&service).await, before);
    assert_eq!(written(folder.path()), 0, "no half line is left");
}

/// The service places orders and a client follows the feed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_it_loses_no_event() {
    let (service, folder) = (Arc::new(Service::start().await), tempfile::tempdir().expect("a folder"));
    make_old_orders(&service, 6000).await;
    let before: BTreeSet<String> = logged(&service).await.into_iter().collect();
    let end = next(&service.client.get("/events?from=end").await.expect(200)).expect("a link");
    let over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (service, over) = (service.clone(), over.clone());
        async move {
            let mut steps = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let order = service.place_and(&["pay"]).await;
                steps.extend([format!("{}/1", id(&order)), format!("{}/2", id(&order))]);
            }
            steps
        }
    });
    let mut kills = 0;
    loop {
        let at = written(folder.path());
        let mut program = start(&service, folder.path());
        // Each time a little later.
        let mut ended = None;
        wait::until("the program writes", async || {
            ended = program.try_wait().expect("asked");
            ended.is_some() || written(folder.path()) > at + kills * 200_000
        })
        .await;
        if ended.is_some_and(|ended| ended.success()) {
            break;
        }
        program.kill().expect("killed");
        program.wait().expect("it ended");
        until_gone(&service).await;
        kills += 1;
        let kept: BTreeSet<String> = logged(&service).await.into_iter().chain(archived(folder.path()).into_keys()).collect();
        assert!(kept.is_superset(&before), "after kill {kills}: {:?} are lost", before.difference(&kept).next());
    }
    assert!(kills >= 3, "it was faster than the test: {kills}");
    over.store(true, Ordering::Relaxed);
    let young = writer.await.expect("no request failed");
    assert!(!young.is_empty());
    let (followed, _) = follow(&service.client, &format!("{end}&wait=30&limit=1000"), young.len()).await;
    assert_eq!(followed.iter().map(id).collect::<Vec<_>>(), young);

    let mut owner = service.database.owner().await;
    let old = "select count(*) from order_events where occurred_at < now() - interval '400 days'";
    assert_eq!(value::<i64>(&mut owner, old).await, 6000, "each order has one event");
    let files = archived(folder.path());
    assert_eq!(files.len(), 12_000);
    assert!(files.keys().all(|id| before.contains(id)));
    assert_eq!(check_orders(&service).0, Some(0));
}
