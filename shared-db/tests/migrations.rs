//! The shared schema: applied, reverted, explained, and no more open than it must be.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use dev::postgres::{Cluster, ORDERS_ROLE, TestDatabase, USERS_ROLE, connect};
use dev::wait::block_on;
use shared_db::MIGRATOR;
use sqlx::{AssertSqlSafe, Executor};

use inventory::{INVENTORY, strings};

mod inventory;

fn migrate(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    block_on(async || MIGRATOR.run(&mut connect(url).await?).await)
}

fn revert(url: &str) -> Result<(), sqlx::migrate::MigrateError> {
    block_on(async || MIGRATOR.undo(&mut connect(url).await?, 0).await)
}

#[tokio::test]
async fn what_was_reverted_leaves_nothing_and_can_be_applied_again() {
    let database = TestDatabase::empty();
    let before = strings(&mut database.owner().await, INVENTORY).await;
    migrate(database.url()).expect("applied");
    let applied = strings(&mut database.owner().await, INVENTORY).await;
    assert!(applied.len() > before.len() + 50, "{applied:#?}");
    revert(database.url()).expect("reverted");
    database.owner().await.execute("drop table _sqlx_migrations").await.expect("dropped");
    let reverted = strings(&mut database.owner().await, INVENTORY).await;
    let rights = |inventory: &[String]| inventory.iter().any(|line| line.contains("_svc"));
    assert!(!rights(&reverted), "{reverted:#?}");
    assert_eq!(reverted.len(), before.len(), "{reverted:#?}");
    migrate(database.url()).expect("applied again");
    assert_eq!(strings(&mut database.owner().await, INVENTORY).await, applied);
}

#[tokio::test]
async fn each_log_goes_on_from_the_epoch_of_before_and_back_to_the_greater_of_both() {
    const COMMON_EPOCH: i64 = 20261124000005;
    let database = TestDatabase::create();
    let undo = || block_on(async || MIGRATOR.undo(&mut connect(database.url()).await?, COMMON_EPOCH).await);
    let raise = |function: &str, epoch: i64| {
        AssertSqlSafe(format!(
            "create or replace function {function}() returns bigint
             language sql stable parallel safe as 'select {epoch}::bigint'"
        ))
    };
    let mut owner = database.owner().await;
    undo().expect("reverted");
    owner.execute(raise("event_epoch", 7)).await.expect("raised");
    migrate(database.url()).expect("applied");
    let epochs = "select format('%s %s', user_event_epoch(), order_event_epoch())";
    assert_eq!(strings(&mut owner, epochs).await, ["7 7"]);
    owner.execute(raise("order_event_epoch", 9)).await.expect("raised");
    assert_eq!(strings(&mut owner, epochs).await, ["7 9"]);
    undo().expect("reverted");
    assert_eq!(strings(&mut owner, "select event_epoch()::text").await, ["9"]);
}

#[tokio::test]
async fn a_plain_owner_who_may_create_roles_can_apply_it() {
    let cluster = Cluster::temporary().expect("a cluster");
    let mut admin = connect(&cluster.url("postgres")).await.expect("a connection");
    admin
        .execute(AssertSqlSafe(format!("create role shop login createrole password '{}'", cluster.password())))
        .await
        .expect("a role");
    admin.execute("create database shop owner shop").await.expect("a database");
    let url = cluster.url_as("shop", "shop");
    migrate(&url).expect("applied");
    revert(&url).expect("reverted");
    // Nobody else uses the roles, so they are gone.
    let roles = strings(&mut admin, "select rolname::text from pg_roles where rolname like '%\\_svc'").await;
    assert_eq!(roles, Vec::<String>::new());
    migrate(&url).expect("applied again");
}

#[tokio::test]
async fn several_databases_of_one_cluster_can_be_migrated_at_once() {
    let cluster = Cluster::temporary().expect("a cluster");
    let mut admin = connect(&cluster.url("postgres")).await.expect("a connection");
    // Over and over, since roles belong to the cluster: the first round creates them, every revert tries to drop them.
    let urls: Vec<String> = (0..6).map(|n| cluster.url(&format!("shop{n}"))).collect();
    for n in 0..urls.len() {
        admin.execute(AssertSqlSafe(format!("create database shop{n}"))).await.expect("a database");
    }
    let all_at_once = |change: fn(&str) -> Result<(), sqlx::migrate::MigrateError>| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = urls.iter().map(|url| scope.spawn(move || change(url))).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("joined").expect("changed"));
        });
    };
    for _ in 0..3 {
        all_at_once(migrate);
        all_at_once(revert);
    }
    all_at_once(migrate);
}

#[tokio::test]
async fn a_role_that_another_database_uses_outlives_a_revert_with_its_password() {
    let cluster = Cluster::temporary().expect("a cluster");
    let (one, two) = (TestDatabase::on(&cluster), TestDatabase::on(&cluster));
    one.owner().await.execute("alter role users_svc login password 'kept'").await.expect("altered");
    revert(one.url()).expect("reverted");
    migrate(one.url()).expect("applied again");
    let login = two.url().replace(&format!("postgres:{}", cluster.password()), "users_svc:kept");
    let mut service = connect(&login).await.expect("logs in");
    assert_eq!(strings(&mut service, "select name from users").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_service_may_use_its_own_tables_and_the_others_view_and_nothing_else() {
    let database = TestDatabase::create();
    let rights = "
        select format('%s %s: %s', grantee, table_name, string_agg(lower(privilege_type), ' ' order by privilege_type))
        from information_schema.role_table_grants
        where grantee in ('users_svc', 'orders_svc', 'PUBLIC') and table_schema = 'public'
        group by grantee, table_name
        order by 1";
    assert_eq!(
        strings(&mut database.owner().await, rights).await,
        [
            "orders_svc _sqlx_migrations: select",
            "orders_svc customers: select",
            "orders_svc customers_replica: delete insert select update",
            "orders_svc order_events: insert select",
            "orders_svc order_items: delete insert select",
            "orders_svc orders: insert select update",
            "orders_svc orders_cursors: insert select update",
            "orders_svc orders_parked_events: delete insert select update",
            "users_svc _sqlx_migrations: select",
            "users_svc open_orders: select",
            "users_svc open_orders_replica: insert select update",
            "users_svc user_events: insert select",
            "users_svc users: insert select update",
            "users_svc users_cursors: insert select update",
            "users_svc users_parked_events: delete insert select update",
        ]
    );
    for role in [USERS_ROLE, ORDERS_ROLE] {
        let mut service = connect(&database.url_as(role)).await.expect("logs in");
        let refused = service.execute("create table mine (n int)").await.expect_err("it may create tables");
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{refused}");
    }
}

/// Limits of both roles, and what everybody may do with the database.
const LIMITS: &str = "
    select format('%s: %s connections, %s', rolname, rolconnlimit, array_to_string(setconfig, ' '))
    from pg_roles
    left join pg_db_role_setting on setrole = pg_roles.oid
        and setdatabase = (select oid from pg_database where datname = current_database())
    where rolname in ('users_svc', 'orders_svc')
    union all
    select format('public: %s', string_agg(privilege_type, ' ' order by privilege_type))
    from pg_database
    cross join lateral aclexplode(coalesce(datacl, acldefault('d', datdba)))
    where datname = current_database() and grantee = 0
    order by 1";

#[tokio::test]
async fn a_service_is_limited_to_its_part_of_the_server_and_a_revert_takes_the_limits_back() {
    let cluster = Cluster::temporary().expect("a cluster");
    let (one, two) = (TestDatabase::on(&cluster), TestDatabase::on(&cluster));
    let mut owner = one.owner().await;
    // Two fifths of 300.
    let limited = |role: &str| {
        let times = "statement_timeout=5s lock_timeout=2s idle_in_transaction_session_timeout=10s";
        format!("{role}: 120 connections, {times} client_connection_check_interval=2s")
    };
    let expected = [limited("orders_svc"), "public: ".to_owned(), limited("users_svc")];
    assert_eq!(strings(&mut owner, LIMITS).await, expected);
    owner.execute("create role stranger").await.expect("a role");
    for role in ["users_svc", "stranger"] {
        let login = format!("alter role {role} login password '{}'", cluster.password());
        owner.execute(AssertSqlSafe(login)).await.expect("a login");
    }
    let login = |role: &str| one.url().replace("//postgres:", &format!("//{role}:"));
    let denied = |refused: sqlx::Error| {
        let code = refused.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("42501"), "{refused}");
    };
    denied(connect(&login("stranger")).await.expect_err("it may connect"));
    let mut service = connect(&login("users_svc")).await.expect("logs in");
    assert_eq!(strings(&mut service, "select current_setting('statement_timeout')").await, ["5s"]);
    denied(service.execute("create temporary table mine (n int)").await.expect_err("it may create tables"));

    // The other database still needs the limit of connections; an operator's own limit stays.
    revert(one.url()).expect("reverted");
    let mut other = two.owner().await;
    assert_eq!(strings(&mut other, LIMITS).await, expected);
    other.execute("alter role users_svc connection limit 7").await.expect("altered");
    revert(two.url()).expect("reverted");
    assert_eq!(strings(&mut other, LIMITS).await, ["public: CONNECT TEMPORARY"]);
    migrate(two.url()).expect("applied again");
    other.execute("alter role users_svc connection limit 7").await.expect("altered");
    migrate(one.url()).expect("applied again");
    assert!(strings(&mut other, LIMITS).await[2].starts_with("users_svc: 7 connections"));
}

#[tokio::test]
async fn psql_explains_every_table_view_and_column() {
    let database = TestDatabase::create();
    let unexplained = "
        select format('%s.%s', c.relname, a.attname)
        from pg_class c
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'public'::regnamespace
          and c.relkind in ('r', 'v')
          and c.relname <> '_sqlx_migrations'
          and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)";
    assert_eq!(strings(&mut database.owner().await, unexplained).await, Vec::<String>::new());
}

/// Migrations, `dev/docker/init` and `.env.example` as those with Docker use them, on a server set up as theirs is.
#[tokio::test]
async fn the_compose_file_its_roles_and_the_example_variables_fit_together() {
    let file = |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).expect("a file");
    let (compose, variables) = (file("docker-compose.postgres.yml"), file(".env.example"));
    let value = |name: &str| {
        let line = variables.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).expect("a variable");
        line.to_owned()
    };
    for setting in ["POSTGRES_USER: shop", "POSTGRES_PASSWORD: shop-dev", "POSTGRES_DB: shop", "127.0.0.1:5432:5432"] {
        assert!(compose.contains(setting), "{setting}");
    }
    let cluster = Cluster::temporary().expect("a cluster");
    let mut admin = connect(&cluster.url("postgres")).await.expect("a connection");
    // What the image does with its variables.
    admin.execute("create role shop superuser login password 'shop-dev'").await.expect("a role");
    admin.execute("create database shop owner shop").await.expect("a database");
    let port = cluster.url("").rsplit_once(':').map(|(_, end)| end.trim_end_matches('/').to_owned()).expect("a port");
    let here = |name: &str| value(name).replace("127.0.0.1:5432", &format!("127.0.0.1:{port}"));
    let owner_url = here("DATABASE_URL");
    let mut owner = connect(&owner_url).await.expect("the owner logs in");
    owner.execute(AssertSqlSafe(file("dev/docker/init/10-roles.sql"))).await.expect("the roles are made");
    migrate(&owner_url).expect("applied");
    for (variable, table) in [("USERS_DATABASE_URL", "users"), ("ORDERS_DATABASE_URL", "orders")] {
        let mut service = connect(&here(variable)).await.expect("the service logs in");
        service.execute(AssertSqlSafe(format!("select id from {table}"))).await.expect("reads its own table");
    }
}
