//! `cargo xtask up` and `down`.

mod running;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use dev::http::{Client, Unanswered};
use dev::postgres::{Cluster, connect};
use dev::wait::block_on;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use running::{Place, Up, until};
use sqlx::Executor;

/// The message of an `up` that cannot start.
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("xtask runs");
    let message = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{message}");
    message
}

#[test]
fn up_runs_everything_continues_with_its_data_and_leaves_nothing_running() {
    let place = Place::new();
    let up = place.up();
    assert!(up.paste("curl").contains(r#""status":"delivered""#));
    assert!(up.paste("psql").contains("Grace"));

    // A second `up` in the same folder is refused.
    let message = refused(place.xtask(&["up"]));
    assert!(message.contains("another `cargo xtask up`") && message.contains("cargo xtask down"), "{message}");

    let orders = up.paste("curl");
    up.signal(Signal::SIGINT);
    assert_eq!(up.end().0, Some(0), "after Ctrl-C");
    until("everything stops", || place.is_quiet());

    // The second start finds the same rows, and adds none.
    let up = place.up();
    assert_eq!(up.paste("curl"), orders);
    assert!(up.paste("psql").contains("(3 rows)"));

    let down = place.xtask(&["down", "--wipe"]).output().expect("xtask runs");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert_eq!(up.end().0, Some(0), "after down");
    assert!(place.is_quiet() && !place.data().exists());
}

#[test]
fn with_a_local_issuer_the_services_ask_for_its_tokens() {
    let place = Place::new();
    let up = Up::start(place.xtask(&["up", "--auth"]));
    let token = |scope: &str| {
        let minted = place.xtask(&["token", "--scope", scope, "--sub", "me"]).output().expect("xtask runs");
        assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
        String::from_utf8(minted.stdout).expect("text").trim().to_owned()
    };
    let orders = Client::at(format_args!("127.0.0.1:{}", place.ports[1]));
    let status = |token: Option<String>| {
        let client = token.map_or_else(|| orders.clone(), |token| orders.bearing(token));
        block_on(async || Ok::<_, Unanswered>(client.get("/orders").send().await?.status)).expect("an answer")
    };
    assert_eq!(status(None), 401);
    assert_eq!(status(Some(token("users:read:any"))), 403);
    assert_eq!(status(Some(token("orders:read:any"))), 200);
    up.signal(Signal::SIGINT);
    assert_eq!(up.end().0, Some(0), "after Ctrl-C");
    let down = place.xtask(&["down", "--wipe"]).output().expect("xtask runs");
    assert!(down.status.success() && !place.data().exists(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(refused(place.xtask(&["token", "--scope", "x"])).contains("cargo xtask up --auth"));
}

#[test]
fn nothing_outlives_an_up_that_is_killed_and_the_next_one_continues() {
    let place = Place::new();
    let up = place.up();
    let orders = up.paste("curl");
    up.signal(Signal::SIGKILL);
    up.end();
    until("everything stops", || place.is_quiet());
    let up = place.up();
    assert_eq!(up.paste("curl"), orders);
    up.signal(Signal::SIGTERM);
    assert_eq!(up.end().0, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn when_a_service_dies_the_rest_is_stopped_and_it_is_named() {
    let place = Place::new();
    let up = place.up();
    let ours = format!("ORDERS_ADDR=127.0.0.1:{}", place.ports[1]);
    let is_orders = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        fs::read_link(process.join("exe")).is_ok_and(|program| program.ends_with("orders"))
            && environment.split(|&byte| byte == 0).any(|variable| variable == ours.as_bytes())
    };
    let processes = fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let orders = processes.into_iter().find(is_orders).expect("orders runs");
    let id = orders.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("an id");
    kill(Pid::from_raw(id), Signal::SIGKILL).expect("killed");
    let (code, log) = up.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("orders ended with exit code 137"), "{log}");
    assert!(place.is_quiet());
}

#[test]
fn what_keeps_it_from_starting_is_named_with_what_to_do() {
    let place = Place::new();
    let taken = TcpListener::bind(("127.0.0.1", place.ports[1])).expect("the port");
    let message = refused(place.xtask(&["up"]));
    assert!(message.contains("ORDERS_ADDR") && message.contains(&place.ports[1].to_string()), "{message}");
    drop(taken);

    let mut unreachable = place.xtask(&["up"]);
    unreachable.env("DATABASE_URL", format!("postgres://me:secret@127.0.0.1:{}/shop", place.ports[0]));
    let message = refused(unreachable);
    assert!(message.contains("DATABASE_URL") && !message.contains("secret"), "{message}");

    let mut without_postgres = place.xtask(&["up"]);
    without_postgres.env("POSTGRES_BIN_DIR", place.folder.path());
    let message = refused(without_postgres);
    for way in ["apt install", "docker-compose.postgres.yml", "DATABASE_URL="] {
        assert!(message.contains(way), "{way} in {message}");
    }
    assert!(place.is_quiet());
}

#[test]
fn a_folder_with_other_things_in_it_is_neither_used_nor_deleted() {
    let place = Place::new();
    fs::create_dir_all(place.data()).expect("a folder");
    fs::write(place.data().join("diary.txt"), "mine").expect("a file");
    let message = refused(place.xtask(&["up"]));
    assert!(message.contains("holds other files"), "{message}");
    let down = place.xtask(&["down", "--wipe"]).output().expect("xtask runs");
    assert!(down.status.success() && place.data().join("diary.txt").exists());
}

#[test]
fn a_database_of_another_project_is_left_alone() {
    let cluster = Cluster::temporary().expect("a cluster");
    block_on(async || connect(&cluster.url("postgres")).await?.execute("create table theirs (n int)").await)
        .expect("a table");
    let place = Place::new();
    let mut up = place.xtask(&["up"]);
    up.env("DATABASE_URL", cluster.url("postgres"));
    let message = refused(up);
    assert!(message.contains("tables of another project") && !message.contains(cluster.password()), "{message}");
}

#[test]
fn a_server_of_ones_own_is_used_and_its_passwords_are_left_alone() {
    let cluster = Cluster::temporary().expect("a cluster");
    let run = |statement: &'static str| {
        block_on(async || connect(&cluster.url("postgres")).await?.execute(statement).await).expect("done");
    };
    run("create role shop login createrole password 'secret'");
    run("create database shop owner shop");
    let url = cluster.url_as("shop", "shop").replace(cluster.password(), "secret");
    let place = Place::new();
    let up = || {
        let mut command = place.xtask(&["up"]);
        command.env("DATABASE_URL", &url);
        command
    };
    // Roles that cannot log in get a password, which the second start reuses.
    for _ in 0..2 {
        let up = Up::start(up());
        assert!(up.line("psql").contains("psql \"$DATABASE_URL\""), "{:?}", up.lines);
        assert!(up.paste("curl").contains(r#""status":"delivered""#));
        up.signal(Signal::SIGTERM);
        let (code, log) = up.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
    // A role that can log in keeps its password, so a variable must contain its URL.
    fs::remove_dir_all(place.data()).expect("removed");
    let message = refused(up());
    assert!(message.contains("USERS_DATABASE_URL"), "{message}");
}

#[test]
fn beside_a_server_of_ones_own_the_next_database_is_named_and_no_password_of_it_is_shown_or_changed() {
    let cluster = Cluster::temporary().expect("a cluster");
    let run = |database: &str, statement: &'static str| {
        block_on(async || connect(&cluster.url(database)).await?.execute(statement).await).expect("done");
    };
    run("postgres", "create role shop login createrole password 'secret'");
    run("postgres", "create database shop owner shop");
    run("postgres", "create database orders owner shop");
    let url = |database| cluster.url_as("shop", database).replace(cluster.password(), "secret");
    let place = Place::new();
    let mut up = place.xtask(&["up", "--next", "orders"]);
    up.env("DATABASE_URL", url("shop"));
    let message = refused(up);
    assert!(message.contains("ORDERS_DATABASE_NEXT_OWNER_URL") && !message.contains("secret"), "{message}");

    let started = |arguments: &[&str]| {
        let mut up = place.xtask(arguments);
        up.env("DATABASE_URL", url("shop")).env("ORDERS_DATABASE_NEXT_OWNER_URL", url("orders"));
        Up::start(up)
    };
    let up = started(&["up", "--next", "orders"]);
    assert!(up.lines.iter().any(|line| line.contains("orders follows its tables")), "{:?}", up.lines);
    assert!(!up.lines.concat().contains("secret") && !up.lines.concat().contains("export"), "{:?}", up.lines);
    up.signal(Signal::SIGTERM);
    assert_eq!(up.end().0, Some(0));

    // As after `splitctl complete`.
    run("shop", "drop table orders, order_items, order_events cascade");
    let up = started(&["up"]);
    assert!(up.lines.iter().any(|line| line.contains("orders has moved to")), "{:?}", up.lines);
    assert!(up.paste("curl").contains("items"));
    up.signal(Signal::SIGTERM);
    assert_eq!(up.end().0, Some(0));

    let mut up = place.xtask(&["up"]);
    up.env("DATABASE_URL", url("shop"));
    let message = refused(up);
    assert!(message.contains("ORDERS_DATABASE_NEXT_OWNER_URL"), "{message}");
}
