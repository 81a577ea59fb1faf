//! A rehearsal goes the whole way, and changes neither the source nor the target.

use std::process::Command;

use serde_json::Value;

use super::fixture::{Fixture, OWNER, execute, strings};
use super::shop::{assert_nothing_is_left, record, shop};

/// Everything that `pg_dump` sees, and everything that it does not: roles, settings, the database's rights, statistics of
/// writes.
fn picture(fixture: &Fixture, url: &str) -> Vec<String> {
    let dump = fixture.clusters[0].client("pg_dump").unwrap_or_else(|missing| panic!("{missing}"));
    let dumped = Command::new(dump).args(["--dbname", url]).output().expect("it runs");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let text = String::from_utf8(dumped.stdout).expect("text");
    let mut picture: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .map(str::to_owned)
        .collect();
    picture.extend(strings(
        url,
        r"select format('role %s %s %s', rolname, rolcanlogin, shobj_description(oid, 'pg_authid')) from pg_roles
          union all select format('member %s of %s', member::regrole, roleid::regrole) from pg_auth_members
          union all select format('setting %s %s %s', setdatabase, setrole, setconfig) from pg_db_role_setting
          union all select format('database %s %s %s', datname, datdba, datacl) from pg_database
          union all select format('publication %s', pubname) from pg_publication
          union all select format('subscription %s', subname) from pg_subscription
          union all select format('slot %s', slot_name) from pg_replication_slots
          union all select format('schema %s', nspname) from pg_namespace where nspname !~ '^pg_'
          order by 1",
    ));
    picture
}

fn findings<'a>(record: &'a Value, weight: &str) -> Vec<&'a str> {
    let all = record["findings"].as_array().expect("findings").iter();
    all.filter(|finding| finding["weight"] == weight).map(|finding| finding["text"].as_str().expect("a text")).collect()
}

#[test]
fn a_rehearsal_goes_out_and_back_and_changes_neither_database() {
    let fixture = shop();
    let before = [picture(&fixture, &fixture.source), picture(&fixture, &fixture.target)];
    assert!(fixture.done(&["plan", OWNER]).contains("rehearsal: none was made"));
    let said = fixture.done(&["rehearse", OWNER]);
    assert!(said.contains("went out, back and out again without an error"), "{said}");
    assert_eq!(before, [picture(&fixture, &fixture.source), picture(&fixture, &fixture.target)]);
    assert_nothing_is_left(&fixture.target);
    assert_nothing_is_left(&fixture.source);
    let record = record(&fixture);
    assert_eq!(findings(&record, "error"), Vec::<&str>::new());
    assert_eq!(record["unchecked"], serde_json::json!([]));
    assert_eq!(record["rows"]["rows"], "all");
    // The rows of all tables have gone out, back and out.
    let rehearsed: u64 =
        record["tables"].as_array().expect("tables").iter().filter_map(|table| table["rehearsed"].as_u64()).sum();
    assert_eq!(rehearsed, 4000 + 12000 + 3000 + 1500 + 500);
    let switches = record["switches"].as_array().expect("switches");
    let lives: Vec<&str> = switches.iter().filter_map(|switch| switch["lives"].as_str()).collect();
    assert_eq!(lives, ["target", "source", "target"]);
    assert!(switches.iter().all(|switch| switch["pause"]["total"].as_f64() > Some(0.0)), "{switches:?}");
    plan_knows_it(&fixture);
}

/// `plan` says of which definitions the rehearsal was, and whether they have changed.
fn plan_knows_it(fixture: &Fixture) {
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("note: rehearsal: one was made on") && said.contains("found no error"), "{said}");
    execute(&fixture.source, "alter table orders add column colour text");
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("warning: rehearsal: ") && said.contains("have changed: the definitions in the source"), "{said}");
    execute(&fixture.source, "alter table orders drop column colour; alter table customers add column colour text");
    let said = fixture.done(&["plan", OWNER]);
    assert!(said.contains("note: rehearsal: one was made on"), "a table that stays has changed: {said}");
}

#[test]
fn without_rows_and_on_another_server_roles_have_stand_ins() {
    let mut fixture = shop();
    fixture.clusters.push(super::fixture::cluster());
    let scratch = fixture.clusters[2].url("postgres");
    // A setting of the target, and a role that neither server of the move must lend to the third one.
    execute(&fixture.target, "alter database after set timezone = 'Asia/Tokyo'");
    let folder = fixture.folder.path().join("elsewhere");
    let arguments = ["rehearse", OWNER, "--rows", "none", "--scratch", &scratch, "--format", "json", "--report"];
    let mut command = fixture.command(&arguments);
    let output = command.arg(&folder).output().expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    assert_eq!(document, record(&fixture));
    assert_eq!(document, super::shop::read(&folder.join("shop.json")));
    let unchecked = document["unchecked"].to_string();
    assert!(unchecked.contains("shop_svc: ") && unchecked.contains("a stand-in took its place"), "{unchecked}");
    assert_eq!(document["rows"]["rows"], "none");
    for url in [&scratch, &fixture.target, &fixture.source] {
        assert_nothing_is_left(url);
    }
    assert_eq!(strings(&scratch, "select rolname::text from pg_roles where rolname like '%svc'"), Vec::<String>::new());
}

#[test]
fn the_applications_own_login_is_tried_on_the_stand_in() {
    let fixture = shop();
    let manifest =
        super::shop::MANIFEST.replace("target = \"$TARGET_URL\"", "target = \"$TARGET_URL\"\n    login = \"$LOGIN\"");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    execute(&fixture.target, "alter role shop_svc password 'its own'");
    let login = fixture.clusters[1].url_as("shop_svc", "after").replace(fixture.clusters[1].password(), "its%20own");
    let rehearse = |login: &str| {
        let mut command = fixture.command(&["rehearse", OWNER, "--rows", "none"]);
        super::fixture::said(&command.env("LOGIN", login).output().expect("it runs"))
    };
    let (code, text) = rehearse(&login);
    assert_eq!(code, Some(0), "{text}");
    let proofs = record(&fixture)["proofs"].clone();
    let used: Vec<&Value> = proofs.as_array().expect("proofs").iter().map(|proof| &proof["own_login"]).collect();
    assert_eq!(used, [true, true, false, true], "the source is not where it logs in");
    let (code, text) = rehearse(&login.replace("its%20own", "zz-wrong"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("shop_svc cannot log in on the target"), "{text}");
    assert!(!text.contains("zz-wrong") && !text.contains("its own"), "{text}");
    assert_nothing_is_left(&fixture.target);
}
