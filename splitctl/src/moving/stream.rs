//! A stream: logical replication from the side where the tables live to the other one, by publication, slot and
//! subscription.
//!
//! The slot is created before the subscription, by a statement of its own. Within one cluster, `create subscription` would
//! wait for itself; and the stream back begins from a slot that exists before the fence. All names follow from the move, so
//! a command finds what a crash left.

use anyhow::{Context, Result, anyhow};
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use super::side::{Database, Side};
use super::{crash_point, marker, relations, slot};
use crate::database::{address, execute, for_libpq};
use crate::exit::Refused;
use crate::names::{Qualified, quote_ident, quote_literal};

/// How long the server may take to connect to the other one.
const TRIAL: &str = "15s";

/// The names of a move's objects.
#[derive(Debug, Clone, Default)]
pub struct Names {
    owner_name: String,
    prefix: String,
    publication: String,
}

impl Names {
    /// Names for the move with this number out of the database with this oid: the cluster's slots share one name space.
    pub fn new(owner_name: &str, number: i32, source_database: i64) -> Self {
        Self {
            owner_name: owner_name.to_owned(),
            prefix: format!("splitctl_{source_database}_{owner_name}_{number}_"),
            publication: format!("splitctl_{owner_name}_{number}"),
        }
    }

    /// The slot and the subscription of a stream.
    pub fn stream(&self, number: i64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// A `like` pattern for all streams of the move.
    pub fn all_streams(&self) -> String {
        escape(&self.prefix) + "%"
    }
}

/// A `like` pattern for one name, in which only the underscore is special.
fn escape(name: &str) -> String {
    name.replace('_', r"\_")
}

/// Publishes the tables and the marker.
pub async fn publish(connection: &mut PgConnection, names: &Names, tables: &[Qualified]) -> Result<()> {
    let exists = query_scalar("select exists (select from pg_publication where pubname = $1)").bind(&names.publication);
    if exists.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    // Truncate is refused on these tables during the move. Rows are published by the root, so each side routes them itself.
    let statement = format!(
        "create publication {} for table {}, {}
         with (publish = 'insert, update, delete', publish_via_partition_root = true)",
        quote_ident(&names.publication),
        relations::list(tables),
        marker::table(&names.owner_name)
    );
    execute(connection, statement)
        .await
        .with_context(|| format!("{}: cannot be created (it needs the tables' owner, and CREATE)", names.publication))
}

/// Drops the publication.
pub async fn unpublish(connection: &mut PgConnection, names: &Names) -> Result<()> {
    Ok(execute(connection, format!("drop publication if exists {}", quote_ident(&names.publication))).await?)
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin<'a> {
    /// With a copy of all rows.
    Copy,
    /// Behind this position in the WAL of the sending side. All changes before it came from the receiving side.
    Behind(&'a str),
}

/// Subscribes, unless that is done.
pub async fn subscribe(from: &Database, to: &mut Database, name: &str, publication: &Names, begin: Begin<'_>) -> Result<()> {
    let enabled: Option<bool> = query_scalar(ENABLED).bind(name).fetch_optional(&mut to.connection).await?;
    if enabled == Some(true) {
        return Ok(());
    }
    if enabled.is_none() {
        create_subscription(from, to, name, &publication.publication, matches!(begin, Begin::Copy)).await?;
        crash_point("subscription made");
    }
    if let Begin::Behind(position) = begin {
        // A crash of the server before a checkpoint resets an advanced slot, but not the subscription's own position. Only a
        // superuser may set that; without one, `origin = none` keeps the changes out that came from here.
        if to.superuser {
            query(BEGIN_BEHIND).bind(name).bind(position).execute(&mut to.connection).await?;
        }
        execute(&mut to.connection, format!("alter subscription {} enable", quote_ident(name))).await?;
    }
    Ok(())
}

/// A subscription that copies is enabled at once. The other is enabled when its position is set.
async fn create_subscription(from: &Database, to: &mut Database, name: &str, publication: &str, copy: bool) -> Result<()> {
    let statement = creation(from, to, name, publication, copy);
    forget_statements(to).await?;
    execute(&mut to.connection, statement).await.map_err(|error| conceal(&error, &from.url_from_other)).with_context(|| {
        format!(
            "{name}: the subscription cannot be created (it needs a superuser, or pg_create_subscription and CREATE from \
             Postgres 16 on; and the {} must reach the other side)",
            to.side
        )
    })
}

fn creation(from: &Database, to: &Database, name: &str, publication: &str, copy: bool) -> String {
    // From Postgres 16 on, changes that were applied here are not sent back. They are applied by the subscription's role,
    // because the fence has revoked the rights of the tables' owner.
    let mut options = String::new();
    if to.version >= 16 {
        options += ", run_as_owner = true";
    }
    if from.version >= 16 && to.version >= 16 {
        options += ", origin = none";
    }
    format!(
        "create subscription {quoted}
         connection {}
         publication {}
         with (create_slot = false, slot_name = {quoted}, enabled = {copy}, copy_data = {copy}{options})",
        quote_literal(&with_application_name(&from.url_from_other, name)),
        quote_ident(publication),
        quoted = quote_ident(name),
    )
}

/// The server logs a statement that fails, and the next one holds a password.
async fn forget_statements(to: &mut Database) -> Result<(), sqlx::Error> {
    if to.superuser {
        execute(&mut to.connection, "set log_min_error_statement = panic").await?;
    }
    Ok(())
}

/// Tries whether the server of `to` can subscribe to `from`: it connects, logs in for replication and looks for a
/// publication. There is none of that name, which Postgres only warns of: a real one needs its tables on both sides,
/// and a copy that was killed has not created them all. The subscription is rolled back.
///
/// # Errors
/// [`Refused`] with the address, its key in the manifest, and the reason.
pub async fn try_subscription(from: &Database, to: &mut Database) -> Result<()> {
    let statement = creation(from, to, "splitctl_try", "splitctl_try", false);
    forget_statements(to).await?;
    let tried = execute(&mut to.connection, format!("begin; set local statement_timeout = '{TRIAL}'; {statement}")).await;
    execute(&mut to.connection, "rollback").await?;
    tried.map_err(|error| {
        let key = match from.side {
            Side::Source => "source_from_target",
            Side::Target => "target_from_source",
        };
        Refused(format!(
            "{}: the server of the {} cannot subscribe there ({:#}). Correct `{key}` in the manifest, pg_hba.conf, the \
             network or the login. Nothing was changed",
            address(&from.url_from_other),
            to.side,
            conceal(&error, &from.url_from_other)
        ))
        .into()
    })
}

/// Names the connection in `pg_stat_activity` and `pg_stat_replication` of the other side.
fn with_application_name(url: &str, name: &str) -> String {
    match url::Url::parse(&for_libpq(url)) {
        Ok(mut url) => {
            url.query_pairs_mut().append_pair("application_name", name);
            url.into()
        }
        Err(_) => url.to_owned(),
    }
}

/// Removes the password: a server may repeat parts of a connection string that it cannot use.
fn conceal(error: &sqlx::Error, url: &str) -> anyhow::Error {
    let mut text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    if let Ok(url) = url::Url::parse(url) {
        let parameters = url.query_pairs().filter(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
        for password in parameters.chain(url.password().map(str::to_owned)).filter(|password| !password.is_empty()) {
            text = text.replace(&password, "…");
        }
    }
    anyhow!(text)
}

/// The health of a stream.
#[derive(Debug, Clone, Default, FromRow)]
#[sqlx(default)]
pub struct Health {
    /// Whether the subscription exists.
    pub exists: bool,
    /// Whether its worker runs.
    pub works: bool,
    /// How many tables have been copied.
    pub ready: i64,
    /// How many tables there are.
    pub tables: i64,
    /// How often the copy or the stream has failed since the subscription was created.
    pub failures: i64,
}

/// Reads the health of a stream from the side that receives it.
pub async fn read_health(to: &mut PgConnection, name: &str) -> Result<Health, sqlx::Error> {
    Ok(query_as(HEALTH).bind(name).fetch_optional(to).await?.unwrap_or_default())
}

/// Ends one stream.
pub async fn end(from: &mut Database, to: &mut Database, name: &str) -> Result<()> {
    end_subscriptions(from, to, &escape(name)).await?;
    slot::drop_all(&mut from.connection, &[escape(name)]).await
}

/// Ends all streams of the move, in both directions.
pub async fn end_all(source: &mut Database, target: &mut Database, names: &Names) -> Result<()> {
    let pattern = names.all_streams();
    end_subscriptions(source, target, &pattern).await?;
    end_subscriptions(target, source, &pattern).await?;
    slot::drop_all(&mut source.connection, std::slice::from_ref(&pattern)).await?;
    slot::drop_all(&mut target.connection, &[pattern]).await
}

#[derive(FromRow)]
struct Subscription {
    oid: i64,
    name: String,
}

/// The slots are dropped first, as long as the subscription exists that names them.
async fn end_subscriptions(from: &mut Database, to: &mut Database, pattern: &str) -> Result<()> {
    let known = query_as(SUBSCRIPTIONS).bind(pattern).fetch_all(&mut to.connection).await?;
    for Subscription { oid, name } in known {
        let quoted = quote_ident(&name);
        execute(&mut to.connection, format!("alter subscription {quoted} disable")).await?;
        crash_point("subscription disabled");
        execute(&mut to.connection, format!("alter subscription {quoted} set (slot_name = none)")).await?;
        // The copy of each table has a slot of its own.
        let copies = format!(r"pg\_{oid}\_sync\_%\_{}", to.identity.system);
        slot::drop_all(&mut from.connection, &[escape(&name), copies]).await?;
        crash_point("slots dropped");
        execute(&mut to.connection, format!("drop subscription {quoted}")).await?;
        crash_point("subscription dropped");
    }
    Ok(())
}

const ENABLED: &str = r"
    select subenabled
    from pg_subscription
    where subname = $1
      and subdbid = (select oid from pg_database where datname = current_database())";

const BEGIN_BEHIND: &str = r"
    select pg_replication_origin_advance('pg_' || oid, $2::text::pg_lsn)
    from pg_subscription
    where subname = $1
      and subdbid = (select oid from pg_database where datname = current_database())
      and coalesce(pg_replication_origin_progress('pg_' || oid, false), '0/0') < $2::text::pg_lsn";

const HEALTH: &str = r"
    select
        true as exists,
        exists (
            select
            from pg_stat_subscription t
            where t.subid = s.oid
              and t.relid is null
              and t.pid is not null
        ) as works,
        (select count(*) filter (where r.srsubstate = 'r') from pg_subscription_rel r where r.srsubid = s.oid) as ready,
        (select count(*) from pg_subscription_rel r where r.srsubid = s.oid) as tables,
        (
            select coalesce(sum(t.sync_error_count + t.apply_error_count), 0)::int8
            from pg_stat_subscription_stats t
            where t.subid = s.oid
        ) as failures
    from pg_subscription s
    where s.subname = $1
      and s.subdbid = (select oid from pg_database where datname = current_database())";

const SUBSCRIPTIONS: &str = r"
    select oid::int8, subname::text as name
    from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
      and subname::text like $1";
