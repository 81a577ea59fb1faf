//! Two clusters, both services, and the programs that run on them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use dev::http::Client;
use dev::postgres::{Cluster, allow_login, connect, create_database};
use dev::process::free_address;
use dev::wait::within;
use serde_json::Value;
use shared_db::MIGRATOR;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;
use tokio::process::Command;

use crate::services::{Running, SERVICES};
use crate::workspace::root;

/// How long each service may take to read the other's snapshot.
const FOLLOW: Duration = Duration::from_secs(90);
/// The shared database.
const SHARED: &str = "shop";

/// All processes of the demo. Dropping this value stops them.
pub struct Scene {
    programs: PathBuf,
    owner: &'static str,
    running: Running,
    addresses: [SocketAddr; 2],
    grpc: SocketAddr,
    source: Cluster,
    target: Cluster,
}

impl Scene {
    /// Starts the clusters, and creates the shared database and the owner's own with their schemas.
    pub async fn prepare(programs: &Path, owner: &'static str) -> Result<Self> {
        // Equal settings make the figures comparable.
        let settings = ["shared_buffers=512MB", "max_wal_size=4GB"];
        let (source, target) = (Cluster::temporary_with(&settings)?, Cluster::temporary_with(&settings)?);
        let own = Migrator::new(root().join("services").join(owner).join("migrations")).await?;
        for (cluster, database, migrations) in [(&source, SHARED, &MIGRATOR), (&target, owner, &own)] {
            create_database(&mut connect(&cluster.url("postgres")).await?, database).await?;
            let mut operator = connect(&cluster.url(database)).await?;
            migrations.run(&mut operator).await.context("the migrations cannot be applied")?;
            for service in SERVICES {
                // The owner's migrations create its own role alone.
                if database == SHARED || service.name == owner {
                    allow_login(&mut operator, service.role, cluster.password()).await?;
                }
            }
        }
        Ok(Self {
            programs: programs.to_owned(),
            owner,
            running: Running::default(),
            addresses: [free_address(), free_address()],
            grpc: free_address(),
            source,
            target,
        })
    }

    /// Starts both services with these additional variables.
    pub async fn start(&mut self, more: &[(&str, &str)]) -> Result<()> {
        let [users, orders] = self.addresses;
        for (service, address) in SERVICES.into_iter().zip(self.addresses) {
            let mut variables = vec![
                ("EVENTS_VIA", "feed".to_owned()),
                ("USERS_URL", format!("http://{users}")),
                ("ORDERS_URL", format!("http://{orders}")),
                ("USERS_GRPC_ADDR", self.grpc.to_string()),
                ("RUST_LOG", "error".to_owned()),
                ("LOG_FORMAT", "json".to_owned()),
            ];
            variables.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            if service.name == self.owner {
                variables.push((service.next_variable, self.target.url_as(service.role, self.owner)));
            }
            let url = self.source.url_as(service.role, SHARED);
            self.running.start(service, address, &self.programs, &url, &variables)?;
        }
        self.running.until_ready().await
    }

    /// Stops both services after the requests that they have accepted.
    pub fn stop(&mut self) {
        self.running = Running::default();
    }

    pub fn users(&self) -> Client {
        Client::at(self.addresses[0])
    }

    pub fn orders(&self) -> Client {
        Client::at(self.addresses[1])
    }

    /// Connects as the owner to the database that has the service's tables after the move.
    pub async fn database_of(&self, service: &str) -> Result<PgConnection> {
        let url = if service == self.owner { self.target.url(self.owner) } else { self.source.url(SHARED) };
        Ok(connect(&url).await?)
    }

    /// Runs `splitctl` with the project's manifest, and returns the document that it prints. Another exit code is an error.
    pub async fn splitctl(&self, arguments: &[&str]) -> Result<Value> {
        let (code, document) = self.ask_splitctl(arguments).await?;
        ensure!(code == Some(0), "splitctl {} ended with {code:?}: {document}", arguments.join(" "));
        Ok(document)
    }

    /// When the newest switch was made. The side that was left has recorded it first.
    pub async fn switched_at(&self) -> Result<SystemTime> {
        let mut rows: Vec<(i64, f64)> = Vec::new();
        for url in [self.source.url(SHARED), self.target.url(self.owner)] {
            let newest = "select generation, extract(epoch from at)::float8 from splitctl.switches";
            rows.extend(sqlx::query_as::<_, (i64, f64)>(newest).fetch_all(&mut connect(&url).await?).await?);
        }
        let newest = rows.iter().map(|(generation, _)| *generation).max().context("no side has recorded a switch")?;
        let first = rows.iter().filter(|(generation, _)| *generation == newest).map(|(_, at)| *at);
        Ok(UNIX_EPOCH + Duration::try_from_secs_f64(first.fold(f64::INFINITY, f64::min))?)
    }

    async fn ask_splitctl(&self, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
        let mut command = Command::new(self.programs.join("splitctl"));
        command.arg("--manifest").arg(root().join("split.toml")).args(arguments).args(["--format", "json"]);
        command.env("DATABASE_URL", self.source.url(SHARED));
        command.envs(SERVICES.map(|service| (service.next_owner_variable, self.target.url(self.owner))));
        let output = command.kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let document = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("splitctl {}: {}", arguments.join(" "), said.trim()))?;
        Ok((output.status.code(), document))
    }

    /// Fails if the audit finds anything but unused borrowings of the manifest.
    pub async fn nothing_crosses(&self) -> Result<()> {
        let (_, audit) = self.ask_splitctl(&["audit"]).await?;
        let findings = audit["findings"].as_array().context("the audit's findings")?;
        let harmless = |finding: &&Value| finding["kind"] == "unused-borrowing" || finding["severity"] == "warning";
        let crossing = findings.iter().find(|finding| !harmless(finding));
        crossing.map_or(Ok(()), |crossing| bail!("something still crosses: {crossing}"))
    }

    /// Waits until each service has read the other's snapshot, and follows its events.
    pub async fn until_followed(&self) -> Result<()> {
        let mut operator = connect(&self.source.url(SHARED)).await?;
        within(FOLLOW, "both services follow each other's events", async || {
            let both = "select (select count(*) from orders_cursors) + (select count(*) from users_cursors)";
            Ok(sqlx::query_scalar::<_, i64>(both).fetch_one(&mut operator).await? == 2)
        })
        .await
    }

    /// Fails if a shadow has given another answer than its primary.
    pub async fn check_shadows(&self) -> Result<()> {
        for (client, metric) in [(self.orders(), "customers_shadow_total"), (self.users(), "open_orders_shadow_total")] {
            let page = client.get("/metrics").send().await?.text();
            let of = |outcome: &str| -> f64 {
                let lines = page.lines().filter(|line| line.starts_with(metric) && line.contains(outcome));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            ensure!(of("\"mismatch\"") == 0.0, "{metric}: shadow and primary differ");
        }
        Ok(())
    }
}
