//! How much WAL a stream may hold back, how fast it goes, what it shows meanwhile, and what is said of a stream that fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::fixture::{Fixture, OWNER, cluster, cluster_with, execute, said, strings, until};

/// About 4 MB of rows, and a table of somebody else.
const SCHEMA: &str = "
    create table history (id integer primary key, said text);
    alter table history alter column said set storage plain;
    insert into history select i, repeat('x', 1000) from generate_series(1, 4000) i;
    create table noise (said text);
    grant all on history to shop_svc";

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["history"]
    target = "$TARGET_URL"
"#;

fn psql(url: &str, statements: &str) -> Child {
    let mut psql = Command::new("psql");
    psql.arg(url).args(["-q", "-c", statements]).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().expect("psql runs")
}

/// Somebody else writes a lot.
fn make_noise(fixture: &Fixture) -> Child {
    let noise = psql(
        &fixture.source,
        "do $$ begin loop
             insert into noise select md5(random()::text) from generate_series(1, 2000);
             commit; perform pg_sleep(0.05);
         end loop; end $$",
    );
    until("the noise is there", || strings(&fixture.source, "select count(*)::text from noise") != ["0"]);
    noise
}

/// A session holds a row of the target that the stream is about to change, so the stream stands still.
fn hold_stream(fixture: &Fixture) -> Child {
    let held = "select 'held' from pg_stat_activity where query like 'begin; select%' and wait_event = 'PgSleep'";
    let holder = psql(&fixture.target, "begin; select from history where id = 7 for update; select pg_sleep(600)");
    until("the row is held", || strings(&fixture.target, held) == ["held"]);
    execute(&fixture.source, "update history set said = 'later' where id = 7");
    holder
}

/// Lets the stream go on.
fn release(fixture: &Fixture, holder: Child) {
    execute(&fixture.target, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where wait_event = 'PgSleep'");
    end(holder);
}

fn end(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn a_copy_that_holds_back_too_much_wal_is_given_up_and_the_next_one_begins_again() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let noise = make_noise(&fixture);
    let plan = fixture.done(&["plan", OWNER, "--max-wal", "8MB"]);
    assert!(plan.contains("note: wal: the source writes") && plan.contains("--max-wal (8.0 MB) lasts for"), "{plan}");
    let said =
        fixture.refused(&["copy", OWNER, "--max-rate", "200kB", "--max-wal", "8MB"], "of WAL, and 8.0 MB is the limit");
    assert!(said.contains("warning: splitctl_") && said.contains("of at most 8.0 MB"), "{said}");
    assert_eq!(strings(&fixture.source, SLOTS), [""; 0]);
    let sessions = "select pid::text from pg_stat_activity where application_name like 'splitctl%'";
    until("its sessions have ended", || strings(&fixture.target, sessions).is_empty());
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl copy"), "the next copy can begin");
    execute(&fixture.source, "update history set said = 'later' where id = 7");
    end(noise);
    fixture.done(&["copy", OWNER]);
    fixture.done(&["verify", OWNER]);
    // While the move stands, `status` judges what the slot holds.
    let status = fixture.done(&["status", OWNER, "--max-wal", "1B"]);
    assert!(status.contains("warning: splitctl_") && status.contains("of at most 1 B"), "{status}");
    assert!(!fixture.done(&["status", OWNER]).contains("warning:"));
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

const SLOTS: &str = "select slot_name::text from pg_replication_slots";

#[test]
fn a_comparison_ends_when_the_stream_holds_back_too_much_wal_and_the_copy_can_be_made_again() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let (holder, noise) = (hold_stream(&fixture), make_noise(&fixture));
    let said = fixture.refused(&["verify", OWNER, "--max-wal", "8MB"], "of WAL, and 8.0 MB is the limit");
    assert!(said.contains("of at most 8.0 MB. At the limit, the stream is given up"), "{said}");
    assert!(said.contains("run `splitctl abort shop`, and copy again"), "{said}");
    assert_eq!(strings(&fixture.source, SLOTS), [""; 0]);
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl abort shop"));
    end(noise);
    release(&fixture, holder);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    fixture.copied();
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_watcher_gives_a_slot_up_only_if_it_is_told_to() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let watch = |arguments: &[&str]| {
        let all = [&["status", OWNER, "--watch", "--format", "json", "--max-wal"], arguments].concat();
        fixture.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let mut only_looks = watch(&["1B"]);
    let mut lines = BufReader::new(only_looks.stdout.take().expect("a pipe")).lines();
    let look: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    let warning = look["warning"].as_str().unwrap_or_default();
    assert!(warning.contains("`splitctl abort shop` ends the move"), "{look}");
    end(only_looks);
    assert_eq!(strings(&fixture.source, SLOTS).len(), 1);
    let (holder, noise) = (hold_stream(&fixture), make_noise(&fixture));
    let mut gives_up = watch(&["8MB", "--give-up"]);
    let mut said = BufReader::new(gives_up.stderr.take().expect("a pipe")).lines();
    let said = said.next().expect("a line").expect("text");
    assert!(said.contains("of WAL, and 8.0 MB is the limit. The stream was given up"), "{said}");
    assert_eq!(strings(&fixture.source, SLOTS), [""; 0]);
    end(gives_up);
    end(noise);
    release(&fixture, holder);
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl abort shop"));
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

#[test]
fn the_slot_of_the_way_back_is_never_given_up_and_the_one_of_the_copy_is_also_when_a_switch_waits() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["cutover", OWNER]);
    let kept = "No command brings a lost way back: `splitctl complete shop --give-up-way-back` ends the move without it";
    for command in ["verify", "rollback"] {
        let said = fixture.done(&[command, OWNER, "--max-wal", "1B"]);
        assert!(said.contains("warning: splitctl_") && said.contains(kept), "{command}: {said}");
    }
    fixture.done(&["verify", OWNER]);
    fixture.refused(&["cutover", OWNER, "--max-wal", "1B"], "of WAL, and 1 B is the limit. The stream was given up");
    execute(&fixture.source, "set role shop_svc; update history set said = 'still here' where id = 7");
    assert_eq!(strings(&fixture.source, SLOTS), [""; 0]);
    assert_eq!(strings(&fixture.target, SLOTS), [""; 0]);
    assert!(fixture.done(&["status", OWNER]).contains("next: splitctl abort shop"));
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}

/// A page of metrics, and the value of one of them.
fn metric(address: &str, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{owner=\"shop\"}} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_slow_copy_shows_its_progress_here_and_to_whoever_watches_it() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let mut watch = fixture.command(&["status", OWNER, "--watch", "--metrics", "127.0.0.1:0", "--format", "json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watch.stderr.take().expect("a pipe")).lines();
    let address = lines.next().expect("a line").expect("text");
    let address = address.trim_start_matches("metrics: http://").trim_end_matches("/metrics").to_owned();
    until("it looks", || metric(&address, "splitctl_move_open") == Some(0.0));

    let begun = Instant::now();
    let mut copy = fixture.command(&["copy", OWNER, "--max-rate", "330kB"]);
    let copy = copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    until("the watcher sees rows", || metric(&address, "splitctl_copy_rows").is_some_and(|rows| rows > 100.0));
    let rows = metric(&address, "splitctl_copy_rows").unwrap_or_default();
    assert!(rows < 4000.0, "{rows}");
    assert_eq!(metric(&address, "splitctl_copy_tables_expected"), Some(1.0));
    let (code, text) = said(&copy.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    assert!(begun.elapsed().as_secs() >= 11, "4 MB at 330 kB a second");
    let progress: Vec<&str> = text.lines().filter(|line| line.starts_with("copying: ")).collect();
    assert_eq!(progress.len(), 2, "one after ten seconds, one at the end: {text}");
    let (first, last) = (progress[0], progress[1]);
    assert!(first.starts_with("copying: 0 of 1 tables, ") && first.contains("kB a second, about "), "{first}");
    assert!(last.starts_with("copying: 1 of 1 tables, 4,000 of about 4,000 rows, 4.0 MB, "), "{last}");
    until("the watcher sees the end", || metric(&address, "splitctl_move_copied") == Some(1.0));
    until("and the stream", || metric(&address, "splitctl_stream_running") == Some(1.0));
    end(watch);

    fixture.done(&["abort", OWNER]);
    // For programs: an object for each line of progress.
    let mut copy = fixture.command(&["copy", OWNER, "--format", "json"]);
    let output = copy.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!((&last["tables"][0], &last["rows"]), (&Value::from(1), &Value::from(4000)), "{text}");
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_watcher_sees_a_move_that_stands_until_it_ends() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let mut watch = fixture.command(&["status", OWNER, "--watch", "--format", "json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let look: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!((&look["open"], &look["copied"], &look["failures"]), (&true.into(), &true.into(), &0.into()), "{look}");
    assert!(look["retained_bytes"].as_i64().is_some() && look["limit_bytes"] == 10_000_000_000_i64, "{look}");
    fixture.done(&["abort", OWNER]);
    let last = lines.map_while(Result::ok).last().expect("a line");
    assert!(last.contains("\"open\":false"), "{last}");
    assert!(watch.wait().expect("it ends").success());
}

#[test]
fn a_stream_that_fails_is_named_with_the_reason() {
    let writes_a_log = cluster_with(&["logging_collector=on"]).expect("a cluster");
    // From 18 on, a worker says more.
    let logged = [
        "log of the target says: duplicate key value violates unique constraint \"history_pkey\" (in public.history)",
        "log of the target says: conflict detected on relation \"public.history\": conflict=insert_exists",
    ];
    for (target, reasons) in [(writes_a_log, &logged[..]), (cluster(), &["the next transaction changes public.history"])] {
        let fixture = Fixture::new(vec![cluster(), target], SCHEMA, MANIFEST);
        fixture.copied();
        execute(&fixture.target, "insert into history values (9000, 'a secret')");
        execute(&fixture.source, "insert into history values (9000, 'a secret')");
        let mut status = String::new();
        until("the reason is known", || {
            status = fixture.done(&["status", OWNER]);
            reasons.iter().any(|reason| status.contains(reason))
        });
        assert!(status.contains("failing: splitctl_") && !status.contains("a secret"), "{status}");
        assert!(status.contains("next: by hand: splitctl_"), "{status}");
        assert!(!status.contains(" 0 failures to apply"), "{status}");
        fixture.done(&["abort", OWNER]);
        fixture.assert_clean();
    }
}
