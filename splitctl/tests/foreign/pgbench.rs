//! The schema of pgbench, with pgbench itself as the application.

use std::process::{Command, Output};

use super::application::{Application, Load};
use super::fixture::{Fixture, execute};
use super::journey::{End, Foreign, Journey, create_roles};

const PGBENCH: Foreign = Foreign {
    owner: "bench",
    role: "bench",
    crosses: &[],
    work: "
        begin;
        update pgbench_accounts set abalance = abalance + 7 where aid = 3;
        update pgbench_tellers set tbalance = tbalance + 7 where tid = 3;
        update pgbench_branches set bbalance = bbalance + 7 where bid = 1;
        insert into pgbench_history (tid, bid, aid, delta, mtime, filler) values (3, 1, 3, 7, now(), 'work {n}');
        commit

        insert into pgbench_accounts (aid, bid, abalance, filler) values (1000000 + {n}, 1, 0, '')

        delete from pgbench_accounts where aid = 1000000 + {n} - 1 and aid > 1000000

        vacuum pgbench_tellers",
    refused: &[
        "select abalance from pgbench_accounts where aid = 1",
        "update pgbench_branches set bbalance = 0",
        "insert into pgbench_history (delta) values (1)",
    ],
    stored: "select (row_number() over () - 1)::text from pgbench_history where filler is null",
    broken: "
        select 'the balances differ'
        where (select sum(abalance) from pgbench_accounts) is distinct from (select sum(delta) from pgbench_history)
           or (select sum(tbalance) from pgbench_tellers) is distinct from (select sum(delta) from pgbench_history)
           or (select sum(bbalance) from pgbench_branches) is distinct from (select sum(delta) from pgbench_history)
        union all
        select 'another row ' || aid from pgbench_accounts where aid > 100000 group by aid having count(*) > 1",
};

fn run(fixture: &Fixture, url: &str, arguments: &[&str]) -> Output {
    let pgbench = fixture.clusters[0].client("pgbench").unwrap_or_else(|missing| panic!("{missing}"));
    Command::new(pgbench).args(arguments).arg(url).output().expect("pgbench starts")
}

/// Runs pgbench for a second at a time, and counts the transactions that it says it has processed.
fn load(fixture: &Fixture, application: &Application) -> Load {
    let pgbench = fixture.clusters[0].client("pgbench").unwrap_or_else(|missing| panic!("{missing}"));
    let application = application.clone();
    Load::start(move || {
        let mut command = Command::new(&pgbench);
        command.args(["--no-vacuum", "--client=2", "--time=1", "--rate=40"]).arg(application.current_url());
        let output = command.output().expect("pgbench starts");
        let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() || failed.contains("permission denied"), "{said}{failed}");
        let counted = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        let counted = counted.and_then(|rest| rest.split('/').next());
        // A side that refuses the first connection gives no report.
        counted.map_or(0, |number| number.trim().parse().expect("a number"))
    })
}

fn initialise(fixture: &Fixture, arguments: &[&str]) -> Application {
    create_roles(fixture, "create role bench login password '{password}'");
    execute(&fixture.clusters[0].url("postgres"), "alter database before owner to bench");
    execute(&fixture.clusters[1].url("postgres"), "alter database after owner to bench");
    let application = Application::new(fixture, PGBENCH.role);
    let made = run(fixture, application.url("source"), &[&["--initialize", "--quiet"], arguments].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // The manifest is the draft of `init`, with a target.
    std::fs::remove_file(fixture.folder.path().join("split.toml")).expect("removed");
    fixture.done(&["init", "--database", "$SOURCE_URL"]);
    let draft = std::fs::read_to_string(fixture.folder.path().join("split.toml")).expect("a draft");
    let manifest = draft.replace("# target = \"$BENCH_TARGET_URL\"", "target = \"$TARGET_URL\"");
    assert_ne!(draft, manifest, "{draft}");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    application
}

#[test]
fn the_schema_of_pgbench_goes_out_and_back_under_pgbench() {
    let fixture = Fixture::two_clusters("", "");
    let application = initialise(&fixture, &["--foreign-keys"]);
    Journey::new(&PGBENCH, &fixture, &application).goes(load(&fixture, &application), End::Complete);
}

#[test]
fn the_partitions_of_pgbench_go_out_and_back_under_pgbench() {
    let fixture = Fixture::two_clusters("", "");
    let application = initialise(&fixture, &["--partitions=3", "--partition-method=hash"]);
    Journey::new(&PGBENCH, &fixture, &application).goes(load(&fixture, &application), End::Abort);
}
