//! How splitctl, `pg_dump` and the servers connect: TLS, passwords, the dialects of URLs, and settings of sessions.

use std::path::PathBuf;
use std::process::Command;

use super::fixture::{Fixture, OWNER, execute, said, strings, until};

const SCHEMA: &str = "
    create table moves (id integer primary key, x integer);
    create table stays (id integer primary key);
    insert into moves select i, i from generate_series(1, 10) i;
    grant all on moves to shop_svc;
    grant all on stays to other_svc;
";

const MANIFEST: &str = r#"
    source = "$SOURCE_URL"
    [owners.shop]
    role = "shop_svc"
    tables = ["moves"]
    target = "$TARGET_URL"
    [owners.rest]
    role = "other_svc"
    tables = ["stays"]
"#;

fn folder(url: &str) -> PathBuf {
    strings(url, "select current_setting('data_directory')").concat().into()
}

/// Turns TLS on, with a certificate for 127.0.0.1 that the server makes itself. Returns the file that trusts it.
fn with_tls(url: &str) -> PathBuf {
    execute(
        url,
        "copy (select) to program 'umask 077; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
         -keyout server.key -out server.crt 2> /dev/null'",
    );
    execute(url, "alter system set ssl = on");
    execute(url, "select pg_reload_conf()");
    until("the server offers TLS", || strings(url, "show ssl") == ["on"]);
    folder(url).join("server.crt")
}

#[test]
fn every_connection_uses_tls_as_the_url_says() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    let mut pg_dump = Command::new(fixture.clusters[0].client("pg_dump").expect("pg_dump"));
    let tried = pg_dump.args(["--dbname", "host=127.0.0.1 port=1 sslmode=require"]).output().expect("it starts");
    if said(&tried).1.contains("SSL support is not compiled in") {
        // The one in a Python wheel is such.
        return;
    }
    let superuser = (fixture.source.clone(), fixture.target.clone());
    for url in [&mut fixture.source, &mut fixture.target] {
        // The names are sqlx's.
        *url = format!("{url}?ssl-mode=verify-full&ssl-root-cert={}", with_tls(url).display());
        execute(url, "alter system set log_connections = on");
        execute(url, "select pg_reload_conf()");
    }
    fixture.copied();
    let encrypted = "select s.ssl::text from pg_stat_ssl s join pg_stat_replication r on r.pid = s.pid";
    let modes = "select (subconninfo ~ 'sslmode=''verify-full''')::text from pg_subscription";
    assert_eq!(strings(&superuser.0, encrypted), ["true"]);
    assert_eq!(strings(&superuser.1, modes), ["true"]);
    fixture.done(&["cutover", OWNER]);
    assert_eq!(strings(&superuser.1, encrypted), ["true"]);
    assert_eq!(strings(&superuser.0, modes), ["true"]);
    let log = std::fs::read_to_string(folder(&superuser.0).parent().expect("a folder").join("postgres.log"));
    let log = log.expect("a log");
    let dump = log.lines().find(|line| line.contains("application_name=pg_dump")).expect("pg_dump has connected");
    assert!(dump.contains("SSL enabled"), "{dump}");
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
    // The certificate is for another name.
    fixture.command(&["plan", OWNER]);
    let wrong = format!("target_from_source = \"{}\"\n    target = ", fixture.target.replace("127.0.0.1", "localhost"));
    std::fs::write(fixture.folder.path().join("split.toml"), MANIFEST.replace("target = ", &wrong)).expect("written");
    let said = fixture.refused(&["plan", OWNER], "error: connections: localhost:");
    assert!(said.contains("does not match host name"), "{said}");
}

#[test]
fn a_password_is_nowhere_but_in_the_subscription_that_needs_it() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    for url in [&fixture.source, &fixture.target] {
        for setting in ["log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = error"] {
            execute(url, &format!("alter system set {setting}"));
        }
        execute(url, "select pg_reload_conf()");
        until("the server logs statements", || strings(url, "show log_statement") == ["all"]);
    }
    let passwords: Vec<&str> = fixture.clusters.iter().map(|cluster| cluster.password()).collect();
    let is_free = |place: &str, text: &str| {
        for password in &passwords {
            assert!(!text.contains(password), "{place}: {text}");
        }
    };
    let wrong = MANIFEST.replace("target = ", "target_from_source = \"$WRONG_URL\"\n    target = ");
    std::fs::write(fixture.folder.path().join("split.toml"), wrong).expect("written");
    let with_wrong = |change: &dyn Fn(&str) -> String| {
        let output = fixture.command(&["plan", OWNER]).env("WRONG_URL", change(&fixture.target)).output().expect("it runs");
        super::fixture::said(&output)
    };
    for (change, reason) in [
        (&(|url: &str| url.replace("/after", "/nowhere")) as &dyn Fn(&str) -> String, "nowhere"),
        (&|url: &str| format!("{url}?unheard_of=1"), "unheard_of"),
        (&|url: &str| url.replace("postgres:", "mysql:"), "WRONG_URL cannot be used"),
    ] {
        let (code, said) = with_wrong(change);
        assert!(code != Some(0) && said.contains(reason), "{said}");
        is_free("a message", &said);
    }
    std::fs::write(fixture.folder.path().join("split.toml"), MANIFEST).expect("written");
    is_free("copy", &fixture.done(&["copy", OWNER]));
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    let held = "select count(*)::text from pg_subscription where subconninfo ~ 'password='";
    assert_eq!(strings(&fixture.source, held), ["1"]);
    let kept = "select string_agg(detail::text, ' ') from splitctl.journal";
    is_free("the journal", &strings(&fixture.source, kept).concat());
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    for url in [&fixture.source, &fixture.target] {
        assert_eq!(strings(url, held), ["0"]);
        let log = std::fs::read_to_string(folder(url).parent().expect("a folder").join("postgres.log")).expect("a log");
        assert!(log.contains("create subscription"), "statements are in the log");
        is_free("the log", &log);
    }
    fixture.assert_clean();
}

#[test]
fn a_url_that_only_some_programs_would_follow_is_refused_and_the_others_work_for_all() {
    let fixture = Fixture::one_cluster(SCHEMA, MANIFEST);
    for (addition, parameter) in
        [("service=hidden", "service"), ("passfile=/hidden", "passfile"), ("channel_binding=hidden", "channel_binding")]
    {
        let mut command = fixture.command(&["plan", OWNER]);
        command.env("SOURCE_URL", format!("{}?{addition}", fixture.source));
        let (code, said) = super::fixture::said(&command.output().expect("it runs"));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("its parameter `{parameter}`")) && !said.contains("hidden"), "{said}");
    }
    // Host, port, role, password and database come from parameters and from the environment of this process alone.
    let port = fixture.source.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
    let source = format!("postgres:///before?host=127.0.0.1&port={port}&options[work_mem]=9MB&statement-cache-capacity=7");
    let target =
        format!("postgres://postgres@127.0.0.1:{port}/%61fter?connect_timeout=9&sslmode=disable&application_name=x");
    for step in ["plan", "copy", "verify", "cutover", "rollback", "abort"] {
        let mut command = fixture.command(&[step, OWNER]);
        command.env("SOURCE_URL", &source).env("TARGET_URL", &target);
        command.env("PGPASSWORD", fixture.clusters[0].password()).env("PGUSER", "postgres");
        // These are libpq's alone. They would lead pg_dump elsewhere.
        command.env("PGHOSTADDR", "127.0.0.9").env("PGSERVICE", "elsewhere").env("PGTARGETSESSIONATTRS", "standby");
        let (code, said) = super::fixture::said(&command.output().expect("it runs"));
        assert_eq!(code, Some(0), "{step}: {said}");
    }
    fixture.assert_clean();
}

#[test]
fn settings_and_attributes_that_would_lock_the_application_out_are_errors() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.done(&["plan", OWNER]);
    for (on_target, set, reset, finding) in [
        (
            true,
            "alter database after set default_transaction_read_only = on",
            "alter database after reset default_transaction_read_only",
            "error: settings: default_transaction_read_only: transactions of shop_svc on the target only read",
        ),
        (
            true,
            "alter role shop_svc connection limit 0",
            "alter role shop_svc connection limit -1",
            "error: roles: shop_svc: it may open no connection there",
        ),
        (
            true,
            "alter role shop_svc valid until '2001-01-01'",
            "alter role shop_svc valid until 'infinity'",
            "error: roles: shop_svc: its password has expired there",
        ),
        (
            false,
            "alter role postgres set statement_timeout = '10min'",
            "alter role postgres reset statement_timeout",
            "error: settings: statement_timeout: sessions of splitctl's role have a limit of 600000 ms",
        ),
        (false, "alter role shop_svc password 'kept'", "alter role shop_svc password null", "it has no password there"),
        (
            true,
            "set password_encryption = md5; alter role shop_svc password 'kept'",
            "alter role shop_svc password null",
            "keeps its password as an md5 hash",
        ),
    ] {
        let url = if on_target { &fixture.target } else { &fixture.source };
        execute(url, set);
        let (_, said) = fixture.run(&["plan", OWNER]);
        assert!(said.contains(finding), "{finding}: {said}");
        execute(url, &format!("begin read write; {reset}; commit"));
    }
    fixture.done(&["plan", OWNER]);
}

#[test]
fn sessions_work_whatever_settings_the_role_and_the_database_of_the_operator_have() {
    let fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    for (url, database) in [(&fixture.source, "before"), (&fixture.target, "after")] {
        execute(
            url,
            &format!(
                "alter database {database} set lock_timeout = '1ms';
                 alter database {database} set standard_conforming_strings = off;
                 alter database {database} set quote_all_identifiers = on;
                 alter database {database} set search_path = nowhere;
                 alter database {database} set datestyle = 'SQL, DMY';
                 alter database {database} set default_transaction_isolation = serializable;
                 alter role postgres set idle_in_transaction_session_timeout = '1s';
                 alter role postgres set session_replication_role = local;
                 alter role postgres set row_security = off;
                 alter role postgres set bytea_output = escape;
                 alter role postgres set check_function_bodies = off;"
            ),
        );
    }
    fixture.copied();
    for step in ["cutover", "verify", "rollback", "verify", "abort"] {
        fixture.done(&[step, OWNER]);
    }
    fixture.assert_clean();
}

#[test]
fn a_password_that_changes_during_a_move_is_used_from_the_next_command_on() {
    let mut fixture = Fixture::two_clusters(SCHEMA, MANIFEST);
    fixture.copied();
    let change = |url: &str, password: &str| {
        execute(url, &format!("alter role postgres password '{password}'"));
        let (rest, host) = url.split_once('@').expect("a role");
        let (rest, _) = rest.rsplit_once(':').expect("a password");
        let changed = format!("{rest}:{password}@{host}");
        // The server has to log in again.
        execute(&changed, "select pg_terminate_backend(pid) from pg_stat_replication");
        changed
    };
    fixture.source = change(&fixture.source, "one");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["cutover", OWNER]);
    fixture.target = change(&fixture.target, "two");
    fixture.done(&["verify", OWNER]);
    fixture.done(&["rollback", OWNER]);
    fixture.done(&["abort", OWNER]);
    fixture.assert_clean();
}
