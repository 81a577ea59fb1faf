//! What `verify` compares: keys as their indexes compare them, and tables without a key.

use std::process::{Child, Stdio};

use super::fixture::{Fixture, OWNER, execute, said, signal, strings, until};

/// Keys of types and collations that `=` and `<` of the built-in schema do not serve.
const ODD_KEYS: &str = r#"
    create schema ext;
    create extension if not exists citext schema ext;
    create collation shouting (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create domain short as text check (length(value) < 20);
    create type size as enum ('small', 'big');
    create table names (name ext.citext primary key, note text);
    create table pairs (tenant int, name ext.citext, size size, note text, primary key (tenant, name, size));
    create table folded (name text collate shouting primary key, note text);
    create table sorted (name text collate "C" primary key, note text);
    create table prefixes (name text not null, note text);
    create unique index prefixes_name on prefixes (name text_pattern_ops desc);
    alter table prefixes replica identity using index prefixes_name;
    create table prices (price numeric primary key, note text);
    create table ratios (ratio double precision primary key, note text);
    create table domains (name short primary key, tags text[] not null default '{}', note text);
    create table notes (name text collate shouting references folded, pair ext.citext references names);
    insert into names select case when i % 2 = 0 then 'Name ' else 'name ' end || i, 'note' from generate_series(1, 300) i;
    insert into pairs select i % 3, 'Name ' || i, case when i % 2 = 0 then 'big' else 'small' end::size, 'note'
        from generate_series(1, 300) i;
    insert into folded select case when i % 2 = 0 then 'NAME ' else 'name ' end || i, 'note' from generate_series(1, 300) i;
    insert into sorted select case when i % 2 = 0 then 'B' else 'a' end || i, 'note' from generate_series(1, 300) i;
    insert into prefixes select case when i % 2 = 0 then 'B' else 'a' end || i, 'note' from generate_series(1, 300) i;
    insert into prices select case when i % 2 = 0 then i || '.00' else i || '.0' end::numeric, 'note'
        from generate_series(1, 300) i;
    insert into ratios values ('-0', 'zero'), ('NaN', 'none'), ('-Infinity', 'least');
    insert into ratios select i / 7.0, 'note' from generate_series(1, 300) i;
    insert into domains select 'name ' || i, array['a', 'B'], 'note' from generate_series(1, 300) i;
    insert into notes select 'Name 2', 'NAME 3';
"#;

const ODD_MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["names", "pairs", "folded", "sorted", "prefixes", "prices", "ratios", "domains", "notes"]
    target = "$TARGET_URL"
"#;

fn psql(url: &str, statements: &str) -> Child {
    let mut psql = std::process::Command::new("psql");
    psql.env("PGOPTIONS", "-c search_path=public,ext");
    psql.arg(url).args(["-q", "-c"]).arg(statements).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().expect("psql runs")
}

#[test]
fn keys_are_compared_as_their_indexes_compare_them() {
    let fixture = Fixture::one_cluster(ODD_KEYS, ODD_MANIFEST);
    fixture.done(&["copy", OWNER]);
    let compare = ["verify", OWNER, "--chunk", "7"];
    let said = fixture.done(&compare);
    assert!(said.contains("2404 rows") && said.contains(" 0 chunks"), "each chunk is equal at once: {said}");
    // Keys change to keys that are equal to them, while rows are compared.
    let mut load = psql(
        &fixture.source,
        "do $$ begin for i in 1..100000 loop
             update names set name = case when name::text = 'NAME 7' then 'name 7' else 'NAME 7' end where name = 'name 7';
             update prices set price = case when price::text = '9.0' then 9.000 else 9.0 end where price = 9;
             update folded set name = case when name = 'NAME 8' collate \"C\" then 'name 8' else 'NAME 8' end
                 where name = 'name 8';
             commit; perform pg_sleep(0.02);
         end loop; end $$",
    );
    fixture.done(&compare);
    load.kill().expect("killed");
    load.wait().expect("ended");
    execute(
        &fixture.target,
        "set search_path = public, ext; update names set note = 'other' where name = 'NAME 100';
         delete from pairs where name = 'name 200';
         update prices set note = 'other' where price = 100; insert into folded values ('other', 'more')",
    );
    let said = fixture.refused(&compare, "4 differ");
    for line in [
        "'Name 100'::ext.citext of names is different",
        "'2'::integer, 'Name 200'::ext.citext, 'big'::public.size) of pairs is missing",
        "'100.00'::numeric of prices is different",
        "'other'::text of folded is extra",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    fixture.done(&["abort", OWNER]);
}

/// Rows that are equal by their types, and not to the bit: an update or a delete may find either of them on the target.
const WITHOUT_KEY: &str = "
    create table history (amount numeric, ratio double precision, said text);
    insert into history select i, i, 'line ' || i from generate_series(1, 300000) i;
    insert into history values (1.0, '0', 'twin'), (1.00, '-0', 'twin');
    grant all on history to shop_svc";

const HISTORY_MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["history"]
    target = "$TARGET_URL"
"#;

/// Runs `verify`, and returns its exit code, what it said, and the most memory that it had, in MiB.
pub fn verify(fixture: &Fixture, flags: &[&str]) -> (Option<i32>, String, u64) {
    let arguments = [&["verify", OWNER], flags].concat();
    let mut verify = fixture.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let status = format!("/proc/{}/status", verify.id());
    let mut most = 0;
    while verify.try_wait().expect("asked").is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        most = peak.unwrap_or(0).max(most);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (code, said) = super::fixture::said(&verify.wait_with_output().expect("ended"));
    (code, said, most / 1024)
}

#[test]
fn a_table_without_a_key_is_compared_in_little_memory_while_it_is_written_to() {
    let fixture = Fixture::one_cluster(WITHOUT_KEY, HISTORY_MANIFEST);
    fixture.done(&["copy", OWNER]);
    execute(&fixture.source, "delete from history where amount::text = '1.00'");
    let (code, said, most) = verify(&fixture, &[]);
    assert!(code == Some(0) && most < 64 && said.contains("300001 rows"), "{most} MiB: {said}");
    let mut load = psql(
        &fixture.source,
        "do $$ begin loop
             insert into history values (random(), random(), 'load');
             update history set ratio = ratio + 1 where ctid = '(0,1)';
             commit; perform pg_sleep(0.0005);
         end loop; end $$",
    );
    let writes = "select count(*)::text from history where said = 'load'";
    until("the load runs", || strings(&fixture.source, writes) != ["0"]);
    let (code, said, most) = verify(&fixture, &[]);
    assert!(code == Some(0) && most < 64, "{most} MiB: {said}");
    // Real differences are found under the same load, each by the hash of its row.
    execute(&fixture.target, "delete from history where said = 'line 17'; insert into history values (7, 7, 'line 7')");
    let (code, said, most) = verify(&fixture, &[]);
    assert!(code == Some(1) && most < 64 && said.contains("2 differ"), "{most} MiB: {said}");
    assert!(said.contains("of history is missing") && said.contains("of history is extra"), "{said}");
    // So are many.
    execute(&fixture.target, "delete from history where said <> 'load'");
    let (code, said, most) = verify(&fixture, &[]);
    assert!(code == Some(1) && most < 64 && said.contains("differ") && said.contains("part "), "{most} MiB: {said}");
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_row_that_changes_all_the_time_is_proven_equal_and_its_writers_hardly_wait() {
    let hot = "create table history (id integer primary key, n bigint);
        insert into history select i, 0 from generate_series(1, 1000) i;
        grant all on history to shop_svc";
    let fixture = Fixture::two_clusters(hot, HISTORY_MANIFEST);
    fixture.done(&["copy", OWNER]);
    // Between two comparisons the rows change, and a stream on a busy machine keeps up.
    let mut load = psql(
        &fixture.source,
        "do $$ begin loop
             update history set n = n + 1 where id in (7, 8);
             commit;
             perform pg_sleep(0.001);
         end loop; end $$",
    );
    until("the load runs", || strings(&fixture.source, "select (n > 100)::text from history where id = 7") == ["true"]);
    fixture.done(&["verify", OWNER]);
    // A difference of such a row is proven, too.
    execute(&fixture.target, "delete from history where id = 9");
    let said = fixture.refused(&["verify", OWNER], "1 differ");
    assert!(said.contains("'9'::integer of history is missing"), "{said}");
    let before = strings(&fixture.source, "select n::text from history where id = 7");
    until("the load still runs", || strings(&fixture.source, "select n::text from history where id = 7") != before);
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
}

#[test]
fn a_row_that_changes_and_changes_back_meanwhile_is_no_difference() {
    let table = "create table history (id integer primary key, n bigint);
        insert into history select i, 0 from generate_series(1, 1000) i;
        grant all on history to shop_svc";
    let fixture = Fixture::two_clusters(table, HISTORY_MANIFEST);
    fixture.done(&["copy", OWNER]);
    let mut load = psql(
        &fixture.source,
        "do $$ begin loop
             update history set n = 1 - n where id <= 40;
             delete from history where id between 41 and 80;
             commit; perform pg_sleep(0.003);
             insert into history select i, 0 from generate_series(41, 80) i;
             update history set n = 1 - n where id <= 40;
             commit; perform pg_sleep(0.003);
         end loop; end $$",
    );
    until("the load runs", || strings(&fixture.source, "select (max(n) > 0)::text from history") == ["true"]);
    for _ in 0..5 {
        fixture.done(&["verify", OWNER]);
    }
    execute(&fixture.target, "insert into history values (0, 0)");
    let said = fixture.refused(&["verify", OWNER], "1 differ");
    assert!(said.contains("'0'::integer of history is extra"), "{said}");
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
}

/// A commit is sent when it is on disk, and visible on its own side a moment later. Here that moment lasts: the process of
/// the writer waits for a standby that does not exist, and is then stopped.
#[test]
fn a_row_that_is_sent_before_its_own_side_shows_it_is_no_difference() {
    let table = "create table history (id integer primary key, n bigint);
        insert into history select i, 0 from generate_series(1, 1000) i;
        grant all on history to shop_svc";
    let fixture = Fixture::two_clusters(table, HISTORY_MANIFEST);
    fixture.done(&["copy", OWNER]);
    let waits_for = |standby: &str| {
        execute(&fixture.source, &format!("alter system set synchronous_standby_names = '{standby}'"));
        execute(&fixture.source, "select pg_reload_conf()");
        let setting = "select current_setting('synchronous_standby_names')";
        until("the setting is there", || strings(&fixture.source, setting) == [standby]);
    };
    waits_for("nobody");
    let mut writer = psql(&fixture.source, "update history set n = 1 where id = 7");
    until("it is sent", || strings(&fixture.target, "select n::text from history where id = 7") == ["1"]);
    assert_eq!(strings(&fixture.source, "select n::text from history where id = 7"), ["0"]);
    let process = &strings(&fixture.source, "select pid::text from pg_stat_activity where wait_event = 'SyncRep'")[0];
    let process: u32 = process.parse().expect("a process");
    signal(process, "STOP");
    waits_for("");
    let mut verify = fixture.command(&["verify", OWNER]);
    let verify = verify.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let locks = "select 1::text from pg_locks where relation = 'history'::regclass and mode = 'ShareLock'";
    until("it has compared the row again and again", || !strings(&fixture.source, locks).is_empty());
    signal(process, "CONT");
    let (code, text) = said(&verify.wait_with_output().expect("it ends"));
    assert_eq!(code, Some(0), "{text}");
    assert!(writer.wait().expect("it ends").success());
    fixture.done(&["abort", OWNER]);
}

/// Keys and values whose text depends on settings, or which are equal without being the same.
const ODD_VALUES: &str = r#"
    create type pair as (a integer, b text);
    create table moments (at timestamptz primary key, span interval, day date);
    create table codes (code character(5), part "char", n money, primary key (code, part, n));
    create table ranges (span int4range, bits bit varying, net inet, primary key (span, bits, net));
    create table tagged (tags text[], pair pair, doc jsonb, primary key (tags, pair, doc));
    create table raw (bytes bytea primary key, ratio real, amount numeric);
    insert into moments values ('infinity', '1 month', '-infinity'), ('-infinity', '-1 day', '0044-03-15 BC'),
        ('2026-03-29 02:30+02', '24:00:00', '2026-01-01');
    insert into moments select '2026-01-01'::timestamptz + i * '1 hour'::interval, '1 hour', '2026-01-01' from
        generate_series(1, 200) i;
    insert into codes select i, (i % 90 + 32)::"char", i from generate_series(1, 200) i;
    insert into ranges select int4range(i, i + 3), i::bit(12), ('10.0.0.' || i)::inet from generate_series(1, 200) i;
    insert into ranges values ('empty', B'', '::1/64');
    insert into tagged select array['a', null, i::text], row(i, null)::pair, jsonb_build_object('i', i / 2.0)
        from generate_series(1, 200) i;
    insert into tagged values ('{}', row(null, '')::pair, '{"i": 1.00}');
    insert into raw select sha256(i::text::bytea), i / 3.0, (i || '.00')::numeric from generate_series(1, 200) i;
    insert into raw values ('', 'NaN', 'NaN'), ('\x00', '-Infinity', 'Infinity'), ('\x5c', '-0', '-0.000');
    alter table raw add column gone integer default 5;
    alter table raw drop column gone;
    alter table raw add column last text default E'tab\tand\\';
"#;

#[test]
fn values_are_equal_whatever_the_settings_of_both_sides_and_the_order_of_columns() {
    let manifest = ODD_MANIFEST.replace(
        r#""names", "pairs", "folded", "sorted", "prefixes", "prices", "ratios", "domains", "notes""#,
        r#""moments", "codes", "ranges", "tagged", "raw""#,
    );
    let fixture = Fixture::two_clusters(ODD_VALUES, &manifest);
    for setting in ["datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'", "timezone = 'Asia/Kolkata'"] {
        execute(&fixture.target, &format!("alter database after set {setting}"));
        execute(&fixture.source, &format!("alter role postgres set {}", setting.replace("DMY", "MDY")));
    }
    execute(
        &fixture.source,
        "alter database before set extra_float_digits = -5; alter database before set bytea_output = escape",
    );
    // Somebody has made the tables there, with their columns in another order.
    execute(
        &fixture.target,
        r#"create type pair as (a integer, b text);
         create table moments (day date, span interval, at timestamptz primary key);
         create table codes (n money, part "char", code character(5), primary key (code, part, n));
         create table ranges (net inet, span int4range, bits bit varying, primary key (span, bits, net));
         create table tagged (doc jsonb, tags text[], pair pair, primary key (tags, pair, doc));
         create table raw (last text default E'tab\tand\\', ratio real, amount numeric, bytes bytea primary key)"#,
    );
    fixture.done(&["copy", OWNER]);
    let compare = ["verify", OWNER, "--chunk", "7"];
    let said = fixture.done(&compare);
    assert!(said.contains(" 0 chunks"), "each chunk is equal at once: {said}");
    execute(
        &fixture.target,
        "update raw set ratio = '0' where bytes = '\\x5c'; update moments set span = '1 day' where span = '24:00'",
    );
    let said = fixture.refused(&compare, "differ");
    assert!(said.contains("of raw is different") && said.contains("of moments is different"), "{said}");
    fixture.done(&["abort", OWNER]);
}
