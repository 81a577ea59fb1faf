//! `verify` with several workers: differences that the test plants are found while writes go on, and nothing else is.

use std::process::{Child, Stdio};

use super::compared::verify;
use super::fixture::{Fixture, OWNER, execute, strings, until};

/// Tables with a key and without one: a large one of each, many small ones, and partitions. The large one without a key has
/// several slices on each side.
const SCHEMA: &str = r"
    create table big (id bigint primary key, n bigint not null, said text);
    insert into big select i, 0, 'row ' || i from generate_series(1, 200000) i;
    create table lines (n bigint, amount numeric, said text);
    alter table lines alter column said set storage plain;
    insert into lines select i, i / 4.0, repeat('line ', 40) || i from generate_series(1, 150000) i;
    create table days (day date not null, n integer) partition by range (day);
    create table days_1 partition of days for values from ('2026-01-01') to ('2027-01-01');
    create table days_2 partition of days for values from ('2027-01-01') to ('2028-01-01');
    insert into days select '2026-01-01'::date + i % 700, i from generate_series(1, 20000) i;
    do $$ begin for i in 1..20 loop
        execute format('create table small_%s (id integer primary key, said text)', i);
        execute format('insert into small_%s select i, ''small'' from generate_series(1, 50) i', i);
        execute format('create table few_%s (said text)', i);
        execute format('insert into few_%s select ''few '' || i from generate_series(1, 50) i', i);
    end loop; end $$;
    do $$ begin execute (select string_agg(format('grant all on %I to shop_svc', relname), ';')
        from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')); end $$
";

fn manifest() -> String {
    let small = (1..=20).map(|i| format!("\"small_{i}\", \"few_{i}\"")).collect::<Vec<_>>().join(", ");
    format!(
        r#"
        source = "$SOURCE_URL"
        [owners.shop]
        role = "shop_svc"
        tables = ["big", "lines", "days", {small}]
        target = "$TARGET_URL"
        "#
    )
}

/// Writes rows of each table that the test leaves alone otherwise, until it is killed.
fn load(url: &str) -> Child {
    let statements = "do $$ begin
        for i in 1..10000000 loop
            update big set n = n + 1 where id = i * 7919 % 190000 + 1;
            update big set n = n + 1 where id = 5;
            insert into big values (1000000 + i, i, 'load');
            insert into lines values (-i, 0, 'load');
            if i % 200 = 0 then delete from lines where n = -i + 1; end if;
            insert into days values ('2027-05-05', -i);
            update small_3 set said = 'load ' || i where id = 1;
            insert into few_3 values ('load');
            commit;
            perform pg_sleep(0.001);
        end loop;
    end $$";
    let mut psql = std::process::Command::new("psql");
    psql.arg(url).args(["-q", "-c", statements]).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().expect("psql runs")
}

#[test]
fn planted_differences_are_found_by_several_workers_under_load_and_nothing_else_is() {
    let fixture = Fixture::two_clusters(SCHEMA, &manifest());
    fixture.done(&["copy", OWNER]);
    let mut load = load(&fixture.source);
    let written = "select count(*)::text from lines where n < 0";
    until("the load runs", || strings(&fixture.source, written) != ["0"]);
    for jobs in ["1", "8"] {
        let (code, said, most) = verify(&fixture, &["--jobs", jobs]);
        assert!(code == Some(0) && most < 64, "{jobs} workers, {most} MiB: {said}");
    }
    execute(
        &fixture.target,
        "update big set said = 'other' where id = 199999;
         delete from big where id = 195000;
         insert into big values (-1, 0, 'more');
         update small_20 set said = 'other' where id = 50;
         delete from lines where n = 150000;
         insert into lines values (7, 7, 'more');
         insert into days values ('2027-06-06', 1);
         delete from few_20 where said = 'few 50'",
    );
    for jobs in ["1", "8"] {
        let (code, said, most) = verify(&fixture, &["--jobs", jobs]);
        assert!(code == Some(1) && most < 64 && said.contains("8 differ"), "{jobs} workers, {most} MiB: {said}");
        for line in [
            "'199999'::bigint of big is different",
            "'195000'::bigint of big is missing",
            "'-1'::bigint of big is extra",
            "'50'::integer of small_20 is different",
            "of lines is missing",
            "of lines is extra",
            "of days is extra",
            "of few_20 is missing",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
    load.kill().expect("killed");
    load.wait().expect("ended");
    fixture.done(&["abort", OWNER]);
}
