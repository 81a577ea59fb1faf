//! What the faults happen to: a Postgres on a disk of its own, both services, and a proxy between them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dev::http::Client;
use dev::postgres::{Cluster, allow_login, connect, create_database};
use dev::process::{Leashed, Signal, free_address};
use dev::wait::within;
use shared_db::MIGRATOR;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::proxy::{Mode, Proxy};
use crate::services::{SERVICES, Service};

/// The shared database.
const SHARED: &str = "shop";
/// The size of the disk in memory.
const DISK: &str = "size=400m";
const READY: Duration = Duration::from_secs(60);

/// Everything. Dropping this value stops all processes.
pub struct Scene {
    programs: PathBuf,
    running: Vec<Leashed>,
    pub addresses: [SocketAddr; 2],
    /// Between orders and users.
    pub neighbour: Proxy,
    pub cluster: Cluster,
    /// `None` if this process may mount none.
    pub disk: Option<Disk>,
    folder: TempDir,
}

/// A clock that is wrong, by the library `libfaketime`.
pub struct Clock {
    pub library: PathBuf,
    /// Such as `+1d`.
    pub offset: &'static str,
}

impl Clock {
    /// `None` if the machine does not have the library where Debian puts it.
    pub fn find(offset: &'static str) -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        libraries.find(|library| library.is_file()).map(|library| Self { library, offset })
    }
}

/// A file system in memory, so that it can be full.
pub struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(folder);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Fills it up, until the file is deleted.
    pub fn fill(&self) -> Result<PathBuf> {
        let filler = self.0.join("filler");
        // It ends with an error: the disk is full.
        let _ = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(&filler)?);
        Ok(filler)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the last processes may just be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

impl Scene {
    pub async fn prepare(programs: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("faults-").tempdir_in("/var/tmp").context("making a folder")?;
        // The server's own user must be able to pass.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let on_disk = folder.path().join("disk");
        fs::create_dir(&on_disk)?;
        let disk = Disk::mount(&on_disk);
        let cluster = Cluster::persistent(&on_disk.join("cluster"))?;
        let mut admin = connect(&cluster.url("postgres")).await?;
        for setting in ["max_wal_size = '64MB'", "min_wal_size = '32MB'", "max_connections = 200"] {
            admin.execute(AssertSqlSafe(format!("alter system set {setting}"))).await?;
        }
        admin.execute("select pg_reload_conf()").await?;
        create_database(&mut admin, SHARED).await?;
        let mut owner = connect(&cluster.url(SHARED)).await?;
        MIGRATOR.run(&mut owner).await.context("the migrations cannot be applied")?;
        for service in SERVICES {
            allow_login(&mut owner, service.role, cluster.password()).await?;
        }
        let addresses = [free_address(), free_address()];
        let neighbour = Proxy::start(addresses[0], Mode::Pass).await?;
        let running = Vec::new();
        let scene = Self { programs: programs.to_owned(), running, addresses, neighbour, cluster, disk, folder };
        for service in SERVICES {
            scene.write_url(service, scene.cluster.password())?;
        }
        Ok(scene)
    }

    pub fn users(&self) -> Client {
        Client::at(self.addresses[0])
    }

    pub fn orders(&self) -> Client {
        Client::at(self.addresses[1])
    }

    /// Connects as the owner of the tables.
    pub async fn owner(&self) -> Result<PgConnection> {
        Ok(connect(&self.cluster.url(SHARED)).await?)
    }

    /// Where Postgres listens.
    pub fn postgres(&self) -> Result<SocketAddr> {
        let url = self.cluster.url("");
        let address = url.rsplit_once('@').map(|(_, address)| address.trim_end_matches('/'));
        address.context("an address in the URL")?.parse().context("the address of Postgres")
    }

    /// The URL that a service reads now, at another address than the cluster's.
    pub fn url_at(&self, service: Service, address: SocketAddr) -> Result<String> {
        let url = fs::read_to_string(self.url_file(service)).context("reading a URL from a file")?;
        Ok(url.replace(&self.postgres()?.to_string(), &address.to_string()))
    }

    /// The file from which a service reads its URL.
    fn url_file(&self, service: Service) -> PathBuf {
        self.folder.path().join(service.name)
    }

    fn write_url(&self, service: Service, password: &str) -> Result<()> {
        let url = self.cluster.url_as(service.role, SHARED).replace(self.cluster.password(), password);
        fs::write(self.url_file(service), url).context("writing a URL to a file")
    }

    /// Gives a service's role a new password, which its file has a moment before.
    pub async fn rotate(&self, service: Service) -> Result<()> {
        let password = Uuid::new_v4().simple().to_string();
        self.write_url(service, &password)?;
        Ok(allow_login(&mut self.owner().await?, service.role, &password).await?)
    }

    /// Starts both services, by this clock, and waits until they are ready.
    pub async fn start(&mut self, clock: Option<&Clock>) -> Result<()> {
        for (service, address) in SERVICES.into_iter().zip(self.addresses) {
            let file = format!("{}_FILE", service.database_variable);
            let mut variables = vec![
                (service.address_variable, address.to_string()),
                ("CUSTOMERS_VIA", "http".to_owned()),
                ("USERS_URL", format!("http://{}", self.neighbour.address)),
                ("ORDERS_URL", format!("http://{}", self.addresses[1])),
                ("EVENTS_VIA", "feed".to_owned()),
            ];
            if cfg!(debug_assertions) {
                // A debug build is slow at logging in, and requests wait for that.
                variables.push(("DATABASE_QUEUE_TIMEOUT", "2s".to_owned()));
            }
            variables.push((&file, self.url_file(service).display().to_string()));
            self.spawn(service, clock, &variables)?;
        }
        self.until_ready().await
    }

    /// Starts a process of a service.
    pub fn spawn(&mut self, service: Service, clock: Option<&Clock>, variables: &[(&str, String)]) -> Result<()> {
        let program = self.programs.join(service.name);
        ensure!(program.is_file(), "{} is missing", program.display());
        let mut command = Command::new(&program);
        if let Some(clock) = clock {
            // Timers run by another clock, which stays.
            command.env("LD_PRELOAD", &clock.library).env("FAKETIME", clock.offset);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        // There is no `.env`.
        command.current_dir(self.folder.path()).env_remove(service.database_variable);
        command.env("RUST_LOG", "off").env("USERS_GRPC_ADDR", "127.0.0.1:0");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        self.running.push(Leashed::start(&command, Signal::SIGTERM).context("the service cannot be run")?);
        Ok(())
    }

    /// Waits until both services are ready.
    pub async fn until_ready(&mut self) -> Result<()> {
        let clients = [self.users(), self.orders()];
        within(READY, "both services are ready", async || {
            for process in &mut self.running {
                if let Some(ended) = process.ended()? {
                    bail!("a service ended with exit code {}", ended.code());
                }
            }
            Ok(clients[0].is_ready().await && clients[1].is_ready().await)
        })
        .await
    }

    /// Stops the services. They finish what they have begun.
    pub fn stop(&mut self) -> Result<()> {
        for process in self.running.drain(..).rev() {
            process.stop_within(READY)?;
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The processes are on their leashes; this only lets them end before their database.
        let _ = self.stop();
        let _ = self.cluster.stop(true);
    }
}
