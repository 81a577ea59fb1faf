//! Test databases: each test gets a copy of a migrated template.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use sha2::{Digest, Sha256};
use shared_db::MIGRATOR;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::cluster::Cluster;
use crate::wait::{self, block_on};

/// The role that the users service logs in as.
pub const USERS_ROLE: &str = "users_svc";
/// The role that the orders service logs in as.
pub const ORDERS_ROLE: &str = "orders_svc";

/// The schema of a database that holds the tables of users alone.
pub static USERS_BASELINE: Migrator = sqlx::migrate!("../services/users/migrations");
/// The schema of a database that holds the tables of orders alone.
pub static ORDERS_BASELINE: Migrator = sqlx::migrate!("../services/orders/migrations");

const HOW_TO_GET_ONE: &str = "Install Postgres (apt install postgresql, brew install postgresql@18), or set \
     TEST_DATABASE_URL to a superuser's URL.";

/// The server that the tests of this process use.
enum Server {
    Private(Box<Cluster>),
    /// The URL in `TEST_DATABASE_URL`. Its user must be able to create databases and roles, and to set those roles.
    Named(String),
}

impl Server {
    /// Starts the server at the first call. It ends with this process.
    fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| match std::env::var("TEST_DATABASE_URL") {
            Ok(url) => Self::Named(url),
            Err(_) => Self::Private(Box::new(Cluster::temporary().unwrap_or_else(|error| {
                // A panic would bury this sentence, and the harness would keep back what a test prints.
                let _ = writeln!(std::io::stderr(), "error: {error:#}\n{HOW_TO_GET_ONE}");
                std::process::exit(1)
            }))),
        })
    }

    fn url(&self, database: &str) -> String {
        match self {
            Self::Private(cluster) => cluster.url(database),
            Self::Named(url) => with_database(url, database),
        }
    }
}

/// A database for one test, dropped with this value.
pub struct TestDatabase {
    name: String,
    admin_url: String,
    url: String,
}

impl TestDatabase {
    /// A new database with the shared schema on the tests' server.
    ///
    /// # Panics
    /// If there is no server.
    pub fn create() -> Self {
        Self::with_schema("shared", &MIGRATOR)
    }

    /// A new database on the tests' server that holds the tables of one service, `users` or `orders`.
    ///
    /// # Panics
    /// If there is no server, or no service of this name.
    pub fn own(service: &str) -> Self {
        match service {
            "users" => Self::with_schema("users", &USERS_BASELINE),
            "orders" => Self::with_schema("orders", &ORDERS_BASELINE),
            _ => panic!("no service is called {service}"),
        }
    }

    fn with_schema(schema: &'static str, migrator: &'static Migrator) -> Self {
        static TEMPLATES: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());
        let server = Server::get();
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        let template = templates.entry(schema).or_insert_with(|| {
            block_on(async || make_template(server, migrator).await).expect("the template of the tests' databases")
        });
        let template = template.clone();
        drop(templates);
        Self::from_template(&server.url("postgres"), |name| server.url(name), &template)
    }

    /// A new database without any tables on the tests' server.
    ///
    /// # Panics
    /// If there is no server.
    pub fn empty() -> Self {
        let server = Server::get();
        Self::from_template(&server.url("postgres"), |name| server.url(name), "template0")
    }

    /// A new database with the shared schema on the test's own `cluster`.
    ///
    /// # Panics
    /// If the cluster does not answer.
    pub fn on(cluster: &Cluster) -> Self {
        let database = Self::from_template(&cluster.url("postgres"), |name| cluster.url(name), "template0");
        block_on(async || MIGRATOR.run(&mut connect(&database.url).await?).await.map_err(Into::into))
            .unwrap_or_else(|error: sqlx::Error| panic!("the database of a test cannot be migrated: {error}"));
        database
    }

    fn from_template(admin_url: &str, url: impl Fn(&str) -> String, template: &str) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        execute(admin_url, &format!("create database {name} template {template}"));
        Self { admin_url: admin_url.to_owned(), url: url(&name), name }
    }

    /// The URL that the owner of the schema connects with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL for a service's role. The owner logs in and sets the role, because on a named server the role may have no
    /// password, or one that must stay.
    pub fn url_as(&self, role: &str) -> String {
        with_role(&self.url, role)
    }

    /// A connection as the owner of the schema.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn owner(&self) -> PgConnection {
        connect(&self.url).await.expect("the tests' server answers")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        // A test that stopped its own server has nothing left to drop.
        let _ = block_on(async || {
            let mut connection = connect(&self.admin_url).await?;
            connection.execute(AssertSqlSafe(statement)).await
        });
    }
}

/// Opens a connection that no pool manages.
///
/// # Errors
/// The driver's.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(url).await
}

/// Creates a database if the server does not have it.
///
/// # Errors
/// The driver's.
pub async fn create_database(admin: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let known = sqlx::query_scalar::<_, bool>("select exists (select from pg_database where datname = $1)");
    if !known.bind(name).fetch_one(&mut *admin).await? {
        admin.execute(AssertSqlSafe(format!("create database {name} template template0"))).await?;
    }
    Ok(())
}

/// Gives a role a password, of letters and digits only, and the right to log in.
///
/// # Errors
/// The driver's.
pub async fn allow_login(owner: &mut PgConnection, role: &str, password: &str) -> Result<(), sqlx::Error> {
    owner.execute(AssertSqlSafe(format!("alter role {role} login password '{password}'"))).await.map(drop)
}

/// Waits until a query returns true.
///
/// # Panics
/// If the query fails, or does not return true within two minutes.
pub async fn until(connection: &mut PgConnection, query: &str) {
    wait::until(query, async || {
        let holds = sqlx::query_scalar::<_, bool>(AssertSqlSafe(query.to_owned())).fetch_one(&mut *connection).await;
        holds.unwrap_or_else(|error| panic!("{query}: {error}"))
    })
    .await;
}

fn execute(url: &str, statement: &str) {
    let done = block_on(async || connect(url).await?.execute(AssertSqlSafe(statement.to_owned())).await);
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Makes the database that the tests' databases are copied from. Its name contains a hash of its migrations, so a named
/// server keeps it for later runs.
async fn make_template(server: &Server, migrator: &Migrator) -> Result<String, sqlx::Error> {
    let mut digest = Sha256::new();
    migrator.iter().for_each(|migration| digest.update(&migration.checksum));
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("test_template_{digest}");
    let mut admin = connect(&server.url("postgres")).await?;
    // Several test programs may start at the same moment.
    admin.lock().await?;
    let known = sqlx::query_scalar::<_, bool>("select exists (select from pg_database where datname = $1)");
    if !known.bind(&name).fetch_one(&mut admin).await? {
        // It gets its name when it is complete.
        let unfinished = format!("{name}_unfinished");
        admin.execute(AssertSqlSafe(format!("drop database if exists {unfinished} with (force)"))).await?;
        create_database(&mut admin, &unfinished).await?;
        let mut template = connect(&server.url(&unfinished)).await?;
        migrator.run(&mut template).await?;
        template.close().await?;
        admin.execute(AssertSqlSafe(format!("alter database {unfinished} rename to {name}"))).await?;
    }
    admin.unlock().await?;
    admin.close().await?;
    Ok(name)
}

/// The same URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(address, parameters)| (address, Some(parameters)));
    let after_scheme = address.find("://").map_or(0, |at| at + 3);
    let end = address[after_scheme..].find('/').map_or(address.len(), |at| after_scheme + at);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    format!("{}/{database}{parameters}", &address[..end])
}

/// The same URL, with `role` set after login.
pub fn with_role(url: &str, role: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c%20role%3D{role}")
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn a_url_can_be_turned_to_another_database() {
        let changed = [
            ("postgres://me:p%2Fw@host:1/old?sslmode=require", "postgres://me:p%2Fw@host:1/new?sslmode=require"),
            ("postgres://host", "postgres://host/new"),
            ("postgresql:///old?host=/run/postgresql", "postgresql:///new?host=/run/postgresql"),
        ];
        for (from, to) in changed {
            assert_eq!(with_database(from, "new"), to);
        }
    }
}
