//! A lock that is not granted: the message names who held it then, although they may be gone by now.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::app::{MANIFEST, SCHEMA};
use super::fixture::{Fixture, OWNER, cluster, execute, said, strings, try_execute, until};

/// A session that reads a table and stays in its transaction.
fn reader(url: &str, table: &str) -> Child {
    let mut psql = std::process::Command::new("psql");
    psql.arg(url).args(["-q", "-c", &format!("begin; select from {table} limit 1; select pg_sleep(90)")]);
    let reader = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql runs");
    let reads = format!("select 'reads' from pg_locks where relation = '{table}'::regclass and pid <> pg_backend_pid()");
    until("the reader reads", || !strings(url, &reads).is_empty());
    reader
}

fn end(url: &str, mut session: Child) {
    execute(
        url,
        "select pg_terminate_backend(pid)
         from pg_stat_activity
         where query like '%pg_sleep(90)%' and pid <> pg_backend_pid()",
    );
    session.wait().expect("ended");
}

#[test]
fn a_reader_that_kept_detach_waiting_is_named_although_it_is_gone() {
    let fixture = Fixture::new(vec![cluster()], SCHEMA, MANIFEST);
    fixture.copied();
    let reader = reader(&fixture.source, "tenants");
    let mut detach = fixture.command(&["detach", OWNER, "--lock-timeout", "900ms", "--lock-attempts", "1"]);
    let detach = detach.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let waits = "select 'waits' from pg_locks where relation = 'tenants'::regclass and not granted";
    until("it waits for the lock", || !strings(&fixture.source, waits).is_empty());
    until("it has given up", || strings(&fixture.source, waits).is_empty());
    // After an attempt, it lets the sessions go on that queued behind the lock.
    std::thread::sleep(Duration::from_millis(200));
    end(&fixture.source, reader);
    let (code, text) = said(&detach.wait_with_output().expect("it ends"));
    assert!(code == Some(1) && text.contains("could not be locked"), "{text}");
    assert!(text.contains("holds AccessShareLock on public.tenants"), "{text}");
    fixture.done(&["abort", OWNER]);
}

#[test]
fn readers_are_named_where_they_alone_are_in_the_way_of_a_lock() {
    let fixture = Fixture::new(vec![cluster()], SCHEMA, MANIFEST);
    execute(&fixture.source, "create table lines (said text); grant all on lines to shop_svc");
    let manifest = MANIFEST.replace("tables = [\"notes\"]", "tables = [\"notes\", \"lines\"]");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    let reader = reader(&fixture.source, "lines");
    // Without a key, a table gets another replica identity, and no reader may be there meanwhile.
    let copy = ["copy", OWNER, "--lock-timeout", "100ms", "--lock-attempts", "2"];
    let text = fixture.refused(&copy, "could not be locked");
    assert!(text.contains("holds AccessShareLock on public.lines"), "{text}");
    end(&fixture.source, reader);
    fixture.done(&["copy", OWNER]);
    // Readers are in nobody's way at the switch, so a writer is named alone.
    fixture.done(&["verify", OWNER]);
    fixture.done(&["detach", OWNER]);
    let reader = self::reader(&fixture.source, "lines");
    let writer = writer(&fixture.source, "insert into lines values ('open')", "lines");
    let text =
        fixture.refused(&["cutover", OWNER, "--lock-timeout", "100ms", "--lock-attempts", "2"], "could not be locked");
    assert!(text.contains("holds RowExclusiveLock on public.lines") && !text.contains("AccessShareLock"), "{text}");
    end(&fixture.source, writer);
    end(&fixture.source, reader);
    fixture.done(&["cutover", OWNER]);
}

/// A session that writes a row and stays in its transaction.
fn writer(url: &str, statement: &str, table: &str) -> Child {
    let mut psql = std::process::Command::new("psql");
    psql.arg(url).args(["-q", "-c", &format!("begin; {statement}; select pg_sleep(90)")]);
    let writer = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql runs");
    let writes = format!("select 'writes' from pg_locks where relation = '{table}'::regclass and mode = 'RowExclusiveLock'");
    until("the writer writes", || !strings(url, &writes).is_empty());
    writer
}

/// The rights change before the lock, and hold with the commit.
#[test]
fn while_a_switch_waits_for_its_lock_each_side_admits_whom_it_admitted_before() {
    let fixture = Fixture::new(vec![cluster()], SCHEMA, MANIFEST);
    fixture.copied();
    fixture.done(&["detach", OWNER]);
    let rights = "select coalesce(relacl::text, '') from pg_class where oid = 'notes'::regclass";
    let before = [&fixture.source, &fixture.target].map(|url| strings(url, rights));
    let writer = writer(&fixture.source, "insert into notes (tenant_id, token) values (1, 'open')", "notes");
    let mut cutover = fixture.command(&["cutover", OWNER, "--lock-timeout", "900ms", "--lock-attempts", "4"]);
    let cutover = cutover.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let waits = "select 'waits' from pg_locks
        where relation = 'notes'::regclass and mode = 'ShareRowExclusiveLock' and not granted";
    until("it waits for the lock", || !strings(&fixture.source, waits).is_empty());
    let reads = "set role shop_svc; select count(*) from notes";
    assert_eq!(try_execute(&fixture.source, reads), Ok(()));
    assert_eq!(try_execute(&fixture.target, reads), Err("42501".to_owned()));
    until("it has given up once", || strings(&fixture.source, waits).is_empty());
    assert_eq!([&fixture.source, &fixture.target].map(|url| strings(url, rights)), before);
    end(&fixture.source, writer);
    let (code, text) = said(&cutover.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(try_execute(&fixture.source, reads), Err("42501".to_owned()));
    assert_eq!(try_execute(&fixture.target, reads), Ok(()));
}
