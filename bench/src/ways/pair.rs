//! Both services, with a way selected.

use std::time::Duration;

use anyhow::{Context, Result};
use dev::postgres::{ORDERS_ROLE, USERS_ROLE, connect};
use dev::process::free_address;
use dev::wait::within;
use sqlx::{Executor, PgConnection};

use super::{Scene, Way};
use crate::contestants::DATABASE_CONNECTIONS;
use crate::contestants::server::Server;
use crate::figures::Figures;
use crate::jobs::Job;
use crate::seed;

/// How long services may take to follow what has happened.
const PATIENCE: Duration = Duration::from_secs(900);

/// Has orders read its replica, and users' table again.
const REPLACE: &str = include_str!("../../../migrations/replicas/customers.replace.sql");
const RESTORE: &str = include_str!("../../../migrations/replicas/customers.restore.sql");

/// Whether the replica has the present state of each user.
const IS_EQUAL: &str = "select not exists (
    select from users full join customers_replica using (id)
    where users.version is distinct from customers_replica.version)";

/// Whether the relays to this broker have published both logs. The last event in the log's order need not be the one with
/// the highest position.
const IS_PUBLISHED: &str = "
    with ends as (
        (select 'users' as service, concat_ws('/', epoch, xid, position) as place
         from user_events order by epoch desc, xid desc, position desc limit 1)
        union all
        (select 'orders', concat_ws('/', epoch, xid, position)
         from order_events order by epoch desc, xid desc, position desc limit 1)),
    cursors as (
        select 'users' as service, cursor from users_cursors where log = $1
        union all
        select 'orders', cursor from orders_cursors where log = $1)
    select not exists (select from cursors join ends using (service) where cursor <> place)";

/// Both services.
pub struct Pair<'a> {
    scene: &'a Scene<'a>,
    /// The variables of orders.
    variables: Vec<(&'static str, String)>,
    users: Option<Server>,
    orders: Option<Server>,
    pub owner: PgConnection,
    postgres: u32,
}

impl<'a> Pair<'a> {
    /// Starts both. With a replica, orders has received everything, and nothing is left to be published.
    pub async fn start(scene: &'a Scene<'a>, way: Way, variables: &[(&'static str, String)]) -> Result<Self> {
        let (cluster, database) = (scene.cluster, seed::DATABASE);
        let mut all = variables.to_vec();
        all.extend([
            ("RUST_LOG", "off".to_owned()),
            ("DATABASE_MAX_CONNECTIONS", DATABASE_CONNECTIONS.to_string()),
            ("USERS_GRPC_ADDR", free_address().to_string()),
            ("USERS_DATABASE_URL", cluster.url_as(USERS_ROLE, database)),
            ("ORDERS_DATABASE_URL", cluster.url_as(ORDERS_ROLE, database)),
        ]);
        // users follows no one: its own replica would be another load.
        let of_users = all.iter().filter(|(name, _)| *name != "EVENTS_VIA").map(|(name, value)| (*name, &**value));
        let users = Server::start(scene.programs, "users", "USERS_ADDR", of_users).await?;
        all.push(("USERS_URL", format!("http://{}", users.address())));
        let owner = connect(&cluster.url(database)).await?;
        let postgres = cluster.process_id().context("Postgres has ended")?;
        let mut pair = Self { scene, variables: all, users: Some(users), orders: None, owner, postgres };
        pair.start_orders().await?;
        if way.has_replica() {
            pair.until_equal().await?;
            if let Some(cursor) = way.relay_cursor() {
                pair.until_published(cursor).await?;
            }
            pair.owner.execute("vacuum analyze customers_replica").await?;
            pair.owner.execute(REPLACE).await?;
        }
        Ok(pair)
    }

    /// Ends both, and lets orders read users' table again.
    pub async fn end(mut self) -> Result<()> {
        self.owner.execute(RESTORE).await?;
        Ok(())
    }

    /// Starts orders, beside a process of it that is already there.
    pub async fn start_orders(&mut self) -> Result<()> {
        let variables = self.variables.iter().map(|(name, value)| (*name, &**value));
        let started = Server::start(self.scene.programs, "orders", "ORDERS_ADDR", variables).await?;
        // The earlier one ends here, unless it was killed.
        self.orders = Some(started);
        Ok(())
    }

    pub fn stop_users(&mut self) {
        self.users = None;
    }

    pub fn stop_orders(&mut self) {
        self.orders = None;
    }

    pub fn users(&self) -> Result<&Server> {
        self.users.as_ref().context("users runs")
    }

    pub fn orders(&self) -> Result<&Server> {
        self.orders.as_ref().context("orders runs")
    }

    /// Takes orders away, for a second process of it.
    pub fn take_orders(&mut self) -> Result<Server> {
        self.orders.take().context("orders runs")
    }

    pub async fn measure(&self, job: Job, length: Duration) -> Result<Figures> {
        self.orders()?.measure(job, length, self.users.as_ref(), self.postgres).await
    }

    /// Waits until the replica has everything.
    pub async fn until_equal(&mut self) -> Result<()> {
        let owner = &mut self.owner;
        within(PATIENCE, IS_EQUAL, async || Ok(sqlx::query_scalar(IS_EQUAL).fetch_one(&mut *owner).await?)).await
    }

    async fn until_published(&mut self, cursor: &str) -> Result<()> {
        let (owner, query) = (&mut self.owner, || sqlx::query_scalar(IS_PUBLISHED).bind(cursor));
        within(PATIENCE, IS_PUBLISHED, async || Ok(query().fetch_one(&mut *owner).await?)).await
    }
}
