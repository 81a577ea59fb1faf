//! What `verify` compares: keys as their indexes compare them, and tables without a key.

use std::process::{Child, Stdio};

use super::fixture::{Fixture, OWNER, execute, strings, until};

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
             commit;
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
fn verify(fixture: &Fixture) -> (Option<i32>, String, u64) {
    let mut verify =
        fixture.command(&["verify", OWNER]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
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
    let (code, said, most) = verify(&fixture);
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
    let (code, said, most) = verify(&fixture);
    assert!(code == Some(0) && most < 64, "{most} MiB: {said}");
    // Real differences are found under the same load, each by the hash of its row.
    execute(&fixture.target, "delete from history where said = 'line 17'; insert into history values (7, 7, 'line 7')");
    let (code, said, most) = verify(&fixture);
    assert!(code == Some(1) && most < 64 && said.contains("2 differ"), "{most} MiB: {said}");
    assert!(said.contains("of history is missing") && said.contains("of history is extra"), "{said}");
    // So are many.
    execute(&fixture.target, "delete from history where said <> 'load'");
    let (code, said, most) = verify(&fixture);
    assert!(code == Some(1) && most < 64 && said.contains("differ") && said.contains("part "), "{most} MiB: {said}");
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
}
