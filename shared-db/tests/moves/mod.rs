//! A move of orders' tables by hand: the test does to two databases what `splitctl` does at a switch.

use std::time::Duration;

use dev::postgres::{ORDERS_ROLE, TestDatabase};
use shared_db::{Database, Settings, Side};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

/// The tables of orders, in an order in which rows can be copied.
const TABLES: [&str; 6] =
    ["orders", "order_items", "order_events", "customers_replica", "orders_cursors", "orders_parked_events"];
const TABLES_AND_VIEWS: &str =
    "orders, order_items, order_events, customers_replica, orders_cursors, orders_parked_events, customers";
/// The table that splitctl and every service agree on, and the rights of the service's role.
pub const SWITCHES: &str = concat!(
    include_str!("../../../splitctl/contract/switches.sql"),
    "grant usage on schema splitctl to orders_svc; grant select on splitctl.switches to orders_svc"
);

/// Two databases, and the side where orders' tables live.
pub struct Move {
    pub source: TestDatabase,
    pub target: TestDatabase,
    pub side: Side,
    pub generation: i64,
}

impl Move {
    /// The shared database as it must be before a move, and an empty database of orders' own, which is closed.
    pub async fn begin() -> Self {
        let (source, target) = (TestDatabase::create(), TestDatabase::own("orders"));
        let mut owner = source.owner().await;
        owner
            .execute(include_str!("../../../migrations/replicas/customers.replace.sql"))
            .await
            .expect("the replica is used");
        owner.execute("alter table orders drop constraint orders_user_id_fkey").await.expect("dropped");
        owner.execute(SWITCHES).await.expect("a table");
        target.owner().await.execute(SWITCHES).await.expect("a table");
        let this = Self { source, target, side: Side::Source, generation: 0 };
        this.close(Side::Target).await;
        this
    }

    /// The connections of one process of orders to both databases.
    pub fn database(&self, name: &str, max_connections: usize) -> Database {
        self.database_with(&settings(name, max_connections))
    }

    /// The same with these settings.
    pub fn database_with(&self, settings: &Settings) -> Database {
        let source = Database::new(&self.source.url_as(ORDERS_ROLE), settings).expect("a URL");
        source.moving("orders", &self.target.url_as(ORDERS_ROLE), settings).expect("a URL")
    }

    pub fn on(&self, side: Side) -> &TestDatabase {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    pub async fn owner(&self, side: Side) -> PgConnection {
        self.on(side).owner().await
    }

    pub async fn close(&self, side: Side) {
        execute(&mut self.owner(side).await, &revoke()).await;
    }

    pub async fn open(&self, side: Side) {
        open(&mut self.owner(side).await).await;
    }

    /// Switches to the other side: copies all rows under a lock, runs `prepare` there, opens that side, and closes the
    /// old side with the row of the switch.
    pub async fn switch(&mut self, prepare: &str) {
        let to = match self.side {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        };
        let (mut left, mut entered) = (self.owner(self.side).await, self.owner(to).await);
        let mut fence = loop {
            let mut fence = left.begin().await.expect("a transaction");
            // Below `deadlock_timeout`: above it, Postgres could cancel a request instead.
            let lock =
                format!("set local lock_timeout = '200ms'; lock table {} in share row exclusive mode", TABLES.join(", "));
            match fence.execute(AssertSqlSafe(lock)).await {
                Ok(_) => break fence,
                Err(_) => fence.rollback().await.expect("rolled back"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        copy(&mut fence, &mut entered).await;
        execute(&mut entered, prepare).await;
        open(&mut entered).await;
        self.generation += 1;
        let switch = format!(
            "{}; insert into splitctl.switches (owner, generation, side) values ('orders', {}, '{}')",
            revoke(),
            self.generation,
            to.as_str(),
        );
        execute(&mut fence, &switch).await;
        fence.commit().await.expect("committed");
        self.side = to;
    }
}

/// The usual settings with long time-outs, for a busy machine.
pub fn settings(name: &str, max_connections: usize) -> Settings {
    Settings::new(name, max_connections).with_patience(Duration::from_secs(40))
}

fn revoke() -> String {
    format!("revoke all on {TABLES_AND_VIEWS} from {ORDERS_ROLE}")
}

async fn open(owner: &mut PgConnection) {
    execute(owner, &format!("grant select, insert, update, delete on {TABLES_AND_VIEWS} to {ORDERS_ROLE}")).await;
}

/// Runs statements, which must succeed.
pub async fn execute(connection: &mut PgConnection, statements: &str) {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The number that a query returns.
pub async fn number(connection: &mut PgConnection, query: &str) -> i64 {
    let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(connection).await;
    row.unwrap_or_else(|error| panic!("{query}: {error}")).get(0)
}

/// Waits until a query returns this number.
pub async fn until(connection: &mut PgConnection, query: &str, expected: i64) {
    dev::postgres::until(connection, &format!("select ({query}) = {expected}")).await;
}

/// Copies all rows to the other database, and begins a new epoch of the log there.
async fn copy(from: &mut PgConnection, to: &mut PgConnection) {
    let mut contents = Vec::new();
    for table in TABLES {
        let rows = format!("select coalesce(jsonb_agg(to_jsonb(t)), '[]')::text from {table} t");
        let rows: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut *from).await.expect("rows");
        contents.push((table, rows));
    }
    let lost = "select count(*) from (
                    select to_jsonb(e) from order_events e except select value from jsonb_array_elements($1::jsonb)) lost";
    let lost: i64 = sqlx::query_scalar(lost).bind(&contents[2].1).fetch_one(&mut *to).await.expect("a number");
    assert_eq!(lost, 0, "events were written to the side that the tables had left");
    execute(to, &format!("begin; set local session_replication_role = replica; truncate {}", TABLES.join(", "))).await;
    for (table, rows) in contents {
        let insert = format!(
            "insert into {table} overriding system value select * from jsonb_populate_recordset(null::{table}, $1::jsonb)"
        );
        sqlx::query(AssertSqlSafe(insert)).bind(&rows).execute(&mut *to).await.expect("copied");
    }
    execute(
        to,
        "do $$ begin
             execute format(
                 'create or replace function order_event_epoch() returns bigint language sql stable parallel safe as %L',
                 format('select %s::bigint', (select coalesce(max(epoch), 0) + 1 from order_events)));
             perform setval(pg_get_serial_sequence('order_events', 'position'),
                 (select coalesce(max(position), 0) + 1000 from order_events));
         end $$;
         commit",
    )
    .await;
}
