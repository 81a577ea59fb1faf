//! Each service's own database: what it holds is the service's part of the shared schema, and no more.

#![allow(clippy::disallowed_methods, reason = "tests look at what no service would, and may block")]

use dev::postgres::{ORDERS_BASELINE, ORDERS_ROLE, TestDatabase, USERS_BASELINE, USERS_ROLE, connect};
use dev::wait::block_on;
use shared_db::newest_migration;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use inventory::{INVENTORY, strings};

mod inventory;

const TABLES: &str = "
    select relname::text
    from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> '_sqlx_migrations'
    order by 1";

/// Functions that nothing needs: no default, no trigger, no role.
const ORPHANS: &str = "
    select p.oid::regprocedure::text
    from pg_proc p
    where p.pronamespace = 'public'::regnamespace
      and not exists (select from pg_depend d where d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid)
      and not exists (select from aclexplode(p.proacl) a where a.grantee not in (0, p.proowner))";

/// Functions with rights of their own.
const GRANTED: &str = "
    select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace and proacl is not null";

async fn execute(connection: &mut PgConnection, statement: String) {
    connection.execute(AssertSqlSafe(statement.clone())).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// What is left of the shared schema when both replicas are behind the views, and all that is the `other` service's has
/// gone.
async fn part_without(other: &str, role: &str) -> Vec<String> {
    let shared = TestDatabase::create();
    let mut owner = shared.owner().await;
    owner.execute(include_str!("../../migrations/replicas/customers.replace.sql")).await.expect("the replica is used");
    owner.execute(include_str!("../../migrations/replicas/open_orders.replace.sql")).await.expect("the replica is used");
    let tables = strings(&mut TestDatabase::own(other).owner().await, TABLES).await;
    assert!(tables.len() > 3, "{tables:?}");
    // The foreign key and the other's view go with them.
    execute(&mut owner, format!("drop table {} cascade", tables.join(", "))).await;
    // `drop owned` would also take the role's right to connect to other databases.
    for of in ["all tables in schema public", "schema public"] {
        execute(&mut owner, format!("revoke all on {of} from {role}")).await;
    }
    for function in strings(&mut owner, GRANTED).await {
        execute(&mut owner, format!("revoke all on function {function} from {role}")).await;
    }
    for function in strings(&mut owner, ORPHANS).await {
        execute(&mut owner, format!("drop function {function}")).await;
    }
    strings(&mut owner, INVENTORY).await
}

#[tokio::test]
async fn a_database_of_its_own_holds_the_services_part_of_the_shared_schema_and_nothing_else() {
    for (service, other, role) in [("users", "orders", ORDERS_ROLE), ("orders", "users", USERS_ROLE)] {
        let own = strings(&mut TestDatabase::own(service).owner().await, INVENTORY).await;
        let part = part_without(other, role).await;
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        assert_eq!((only(&own, &part), only(&part, &own)), (vec![], vec![]), "{service}: its own alone, the shared alone");
        assert_eq!(own.len(), part.len());
        assert!(own.len() > 80, "{service}: {}", own.len());
    }
}

#[test]
fn a_service_finds_the_migration_it_was_built_for_in_either_database() {
    for baseline in [&USERS_BASELINE, &ORDERS_BASELINE] {
        assert!(baseline.version_exists(newest_migration()));
    }
}

#[tokio::test]
async fn a_reverted_baseline_leaves_nothing_and_can_be_applied_again() {
    for baseline in [&USERS_BASELINE, &ORDERS_BASELINE] {
        let database = TestDatabase::empty();
        let change = |change: fn(&str, &Migrator)| change(database.url(), baseline);
        let apply = |url: &str, baseline: &Migrator| {
            block_on(async || baseline.run(&mut connect(url).await?).await).expect("applied");
        };
        let before = strings(&mut database.owner().await, INVENTORY).await;
        change(apply);
        let applied = strings(&mut database.owner().await, INVENTORY).await;
        change(|url, baseline| block_on(async || baseline.undo(&mut connect(url).await?, 0).await).expect("reverted"));
        database.owner().await.execute("drop table _sqlx_migrations").await.expect("dropped");
        let reverted = strings(&mut database.owner().await, INVENTORY).await;
        assert!(!reverted.iter().any(|line| line.contains("_svc")), "{reverted:#?}");
        assert_eq!(reverted.len(), before.len(), "{reverted:#?}");
        change(apply);
        assert_eq!(strings(&mut database.owner().await, INVENTORY).await, applied);
    }
}
