//! The services' own databases: `--next` prepares one, and `splitctl` moves the tables there. `up` looks into the
//! databases to find a service's tables.

use std::env;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use dev::postgres::{Cluster, connect, create_database};
use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::database::{Login, SharedDatabase, check_is_for_us, kept_password, place, with_login};
use crate::services::Service;
use crate::workspace::root;

/// Where a service finds its tables.
pub struct Home {
    /// Its database, for its role.
    pub url: String,
    /// The database that its tables can move to.
    pub next_url: Option<String>,
    /// The owner's URL of its own database, if `up` may show it.
    pub owner_url: Option<String>,
    /// Host, port and name of its own database, if its tables have moved there for good.
    pub moved_to: Option<String>,
}

/// The URLs of a service's own database.
struct Own {
    owner_url: String,
    url: String,
}

/// Finds the tables of a service. While both databases have them, the service gets both URLs and decides itself. It
/// first prepares the service's own database, if `next` contains the service.
///
/// # Errors
/// A variable that is missing; an error of a database.
pub async fn home(shared: &SharedDatabase, service: Service, next: &[Service], folder: &Path) -> Result<Home> {
    let wanted = next.contains(&service);
    let own = match &shared.cluster {
        Some(cluster) => private(cluster, service, wanted).await?,
        None => named(service, wanted, folder).await?,
    };
    let shown = |own: &Own| shared.cluster.as_ref().map(|_| own.owner_url.clone());
    if has_table(&mut connect(&shared.owner_url).await?, service).await? {
        let (owner_url, next_url) = (own.as_ref().and_then(shown), own.map(|own| own.url));
        return Ok(Home { url: shared.urls[service.name].clone(), next_url, owner_url, moved_to: None });
    }
    // `splitctl complete` has dropped the tables here.
    let Some(own) = own else {
        let Service { name, database_variable, next_owner_variable, .. } = service;
        // `complete` advises to set this variable.
        if let Some(url) = variable(database_variable) {
            let moved_to = Some(place(&url, database_variable)?);
            return Ok(Home { url, next_url: None, owner_url: None, moved_to });
        }
        bail!("the shared database has no tables of {name}: set {next_owner_variable} to the database that has them");
    };
    let moved_to = Some(place(&own.owner_url, service.next_owner_variable)?);
    Ok(Home { owner_url: shown(&own), url: own.url, next_url: None, moved_to })
}

/// In the private cluster, the database has the service's name.
async fn private(cluster: &Cluster, service: Service, wanted: bool) -> Result<Option<Own>> {
    let mut admin = connect(&cluster.url("postgres")).await?;
    let known = sqlx::query_scalar::<_, bool>("select exists (select from pg_database where datname = $1)");
    if !wanted && !known.bind(service.name).fetch_one(&mut admin).await? {
        return Ok(None);
    }
    create_database(&mut admin, service.name).await?;
    let owner_url = cluster.url(service.name);
    // An `up` that was killed may have created the database alone.
    migrate(&mut connect(&owner_url).await?, service).await?;
    Ok(Some(Own { owner_url, url: cluster.url_as(service.role, service.name) }))
}

/// On a named server, the database must exist, and a variable contains its URL.
async fn named(service: Service, wanted: bool, folder: &Path) -> Result<Option<Own>> {
    let Service { name, next_owner_variable, next_variable, .. } = service;
    let Some(owner_url) = variable(next_owner_variable) else {
        if wanted {
            bail!(
                "--next {name}: with DATABASE_URL, set {next_owner_variable} to the owner's URL of the database for {name}"
            );
        }
        return Ok(None);
    };
    let place = place(&owner_url, next_owner_variable)?;
    let unreachable = |error| anyhow!("{next_owner_variable}: {place}: {error}");
    let mut owner = connect(&owner_url).await.map_err(unreachable)?;
    if wanted {
        check_is_for_us(&mut owner, &place, next_owner_variable).await?;
        migrate(&mut owner, service).await?;
    } else if !has_table(&mut owner, service).await? {
        return Ok(None);
    }
    if let Some(url) = variable(next_variable) {
        return Ok(Some(Own { owner_url, url }));
    }
    Ok(Some(Own { url: log_in(&mut owner, &owner_url, service, folder).await?, owner_url }))
}

/// The service's URL there. Its role may have a password already. That password stays, and a variable must contain the URL.
async fn log_in(owner: &mut PgConnection, owner_url: &str, service: Service, folder: &Path) -> Result<String> {
    let Service { role, next_variable, .. } = service;
    let kept = format!("{role}.next");
    for password in [kept_password(folder, role), kept_password(folder, &kept)].into_iter().flatten() {
        let url = with_login(owner_url, role, &password)?;
        if connect(&url).await.is_ok() {
            return Ok(url);
        }
    }
    Login { owner_url, role, variable: next_variable, kept: &kept }.give_password(owner, folder).await
}

async fn migrate(owner: &mut PgConnection, service: Service) -> Result<()> {
    let migrations = Migrator::new(root().join("services").join(service.name).join("migrations")).await?;
    let failed = || format!("{}: the migrations of its own database cannot be applied", service.name);
    migrations.run(owner).await.with_context(failed)
}

async fn has_table(owner: &mut PgConnection, service: Service) -> Result<bool> {
    Ok(sqlx::query_scalar("select to_regclass('public.' || $1) is not null").bind(service.name).fetch_one(owner).await?)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
