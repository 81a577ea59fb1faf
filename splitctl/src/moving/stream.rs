//! A stream: logical replication from the side where the tables live to the other one, as publication, slot and subscription.
//!
//! The slot is made by a statement of its own before the subscription: within one cluster, `create subscription` would wait for
//! itself, and a slot made before the fence is what the way back starts from. All names can be told from the move, so what a
//! crash left is found again.

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::side::Side;
use super::{crash_point, marker, slot};
use crate::database::execute;
use crate::names::{Qualified, quote_ident, quote_literal};

/// The names of a move's objects.
#[derive(Debug, Clone)]
pub struct Names {
    owner: String,
    prefix: String,
    publication: String,
}

impl Names {
    /// For the move with this number out of the database with this oid: a slot's name is unique in the whole cluster.
    pub fn new(owner: &str, number: i32, source_database: i64) -> Self {
        let publication = format!("splitctl_{owner}_{number}");
        Self { owner: owner.to_owned(), prefix: format!("splitctl_{source_database}_{owner}_{number}_"), publication }
    }

    /// On both sides.
    pub fn publication(&self) -> &str {
        &self.publication
    }

    /// Slot and subscription of a stream.
    pub fn stream(&self, number: i64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// A condition on `name` that holds for all streams of the move.
    pub(super) fn all_streams(&self, name: &str) -> String {
        format!("starts_with({name}, {})", quote_literal(&self.prefix))
    }
}

/// Publishes the tables and the marker, on one side.
pub async fn publish(connection: &mut PgConnection, names: &Names, tables: &[Qualified]) -> Result<()> {
    let exists = sqlx::query_scalar("select exists (select from pg_publication where pubname = $1)");
    if exists.bind(names.publication()).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    let mut listed: Vec<String> = tables.iter().map(Qualified::sql).collect();
    listed.push(marker::table(&names.owner));
    // No truncate: it is refused on these tables while they move. By the root, so that each side may route rows by itself.
    let statement = format!(
        "create publication {} for table {} with (publish = 'insert, update, delete', publish_via_partition_root = true)",
        quote_ident(names.publication()),
        listed.join(", ")
    );
    execute(connection, statement)
        .await
        .context("the tables cannot be published (it takes their owner, and CREATE on the database)")
}

/// Whether the stream's subscription has been made.
pub async fn is_subscribed(to: &mut PgConnection, name: &str) -> Result<bool> {
    let exists = format!("select exists (select from pg_subscription s where s.subname = $1 and {HERE})");
    Ok(sqlx::query_scalar(AssertSqlSafe(exists)).bind(name).fetch_one(to).await?)
}

/// The condition that a subscription `s` is of this database: the catalog is the cluster's.
const HERE: &str = "s.subdbid = (select oid from pg_database where datname = current_database())";

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin<'a> {
    /// With a copy of what is there.
    Copy,
    /// Behind this place in the WAL of the side it comes from: what is before it came from here.
    Behind(&'a str),
}

/// Subscribes, if that has not been done.
pub async fn subscribe(from: &Side, to: &mut Side, names: &Names, number: i64, begin: Begin<'_>) -> Result<()> {
    let name = names.stream(number);
    let quoted = quote_ident(&name);
    let enabled = format!("select subenabled from pg_subscription s where s.subname = $1 and {HERE}");
    let enabled =
        sqlx::query_scalar::<_, bool>(AssertSqlSafe(enabled)).bind(&name).fetch_optional(&mut to.connection).await?;
    if enabled == Some(true) {
        return Ok(());
    }
    if enabled.is_none() {
        // What has been applied here is not sent back, where both servers know how to say so.
        let origin = if from.version >= 16 && to.version >= 16 { ", origin = none" } else { "" };
        let copy = matches!(begin, Begin::Copy);
        // A copy begins at once; its tables are looked for when the subscription is made.
        let statement = format!(
            "create subscription {quoted} connection {} publication {} with (create_slot = false, slot_name = {quoted}, enabled = {copy}, copy_data = {copy}{origin})",
            quote_literal(&with_application_name(&from.url_from_other, &name)),
            quote_ident(names.publication()),
        );
        if to.superuser {
            // A server logs statements that fail, and this one holds a password.
            execute(&mut to.connection, "set log_min_error_statement = panic").await?;
        }
        let done = execute(&mut to.connection, statement).await;
        done.map_err(|error| conceal(&error, &from.url_from_other)).context(
            "the subscription cannot be made (it takes a superuser, from Postgres 16 on pg_create_subscription and CREATE; and this server must reach the other one)",
        )?;
        crash_point("subscription made");
    }
    if let Begin::Behind(place) = begin {
        begin_behind(to, &name, place).await?;
        execute(&mut to.connection, format!("alter subscription {quoted} enable")).await?;
    }
    Ok(())
}

/// A slot that was advanced falls back to where it was when its server crashes before a checkpoint; what the subscription
/// notes for itself does not. Only a superuser may note it; without one, `origin = none` keeps off what came from here.
async fn begin_behind(to: &mut Side, name: &str, place: &str) -> Result<()> {
    if !to.superuser {
        return Ok(());
    }
    let advance = format!(
        "select pg_replication_origin_advance('pg_' || s.oid, $2::text::pg_lsn)
         from pg_subscription s
         where s.subname = $1 and {HERE}
           and coalesce(pg_replication_origin_progress('pg_' || s.oid, false), '0/0') < $2::text::pg_lsn"
    );
    sqlx::query(AssertSqlSafe(advance)).bind(name).bind(place).execute(&mut to.connection).await?;
    Ok(())
}

/// So that `pg_stat_activity` and `pg_stat_replication` of the other side tell whose connection it is.
fn with_application_name(url: &str, name: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut url) => {
            url.query_pairs_mut().append_pair("application_name", name);
            url.into()
        }
        Err(_) => url.to_owned(),
    }
}

/// A server may repeat parts of a connection string that it cannot use.
fn conceal(error: &sqlx::Error, url: &str) -> anyhow::Error {
    let mut text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    if let Ok(url) = url::Url::parse(url) {
        let parameters = url.query_pairs().filter(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
        for password in parameters.chain(url.password().map(str::to_owned)).filter(|password| !password.is_empty()) {
            text = text.replace(&password, "…");
        }
    }
    anyhow::anyhow!(text)
}

/// How a stream does.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether the subscription is there.
    pub exists: bool,
    /// Whether its worker runs.
    pub works: bool,
    /// Tables that have been copied, and how many there are.
    pub ready: (i64, i64),
    /// Failures of the copy and of what follows it, since the subscription was made.
    pub failures: i64,
}

/// Asks the side that receives.
pub async fn health(to: &mut PgConnection, name: &str) -> Result<Health> {
    let row = sqlx::query(
        "select
             exists (select from pg_stat_subscription t where t.subid = s.oid and t.relid is null and t.pid is not null),
             (select count(*) filter (where r.srsubstate = 'r') from pg_subscription_rel r where r.srsubid = s.oid),
             (select count(*) from pg_subscription_rel r where r.srsubid = s.oid),
             (select coalesce(sum(t.sync_error_count + t.apply_error_count), 0)::bigint from pg_stat_subscription_stats t where t.subid = s.oid)
         from pg_subscription s
         where s.subname = $1 and s.subdbid = (select oid from pg_database where datname = current_database())",
    );
    let Some(row) = row.bind(name).fetch_optional(to).await? else { return Ok(Health::default()) };
    Ok(Health { exists: true, works: row.try_get(0)?, ready: (row.try_get(1)?, row.try_get(2)?), failures: row.try_get(3)? })
}

/// Ends a stream: the slots first, while the subscription still tells which they are.
pub async fn end(from: &mut Side, to: &mut Side, names: &Names, number: i64) -> Result<()> {
    end_subscriptions(from, to, &format!("s.subname = {}", quote_literal(&names.stream(number)))).await?;
    slot::dropped(&mut from.connection, &format!("slot_name = {}", quote_literal(&names.stream(number)))).await
}

/// Ends all streams of the move, in both directions.
pub async fn end_all(source: &mut Side, target: &mut Side, names: &Names) -> Result<()> {
    end_subscriptions(source, target, &names.all_streams("s.subname::text")).await?;
    end_subscriptions(target, source, &names.all_streams("s.subname::text")).await?;
    slot::all_dropped(&mut source.connection, names).await?;
    slot::all_dropped(&mut target.connection, names).await
}

async fn end_subscriptions(from: &mut Side, to: &mut Side, condition: &str) -> Result<()> {
    let known = format!(
        "select s.oid::bigint, s.subname::text from pg_subscription s where s.subdbid = (select oid from pg_database where datname = current_database()) and {condition}"
    );
    for row in sqlx::query(AssertSqlSafe(known)).fetch_all(&mut to.connection).await? {
        let (oid, name): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let quoted = quote_ident(&name);
        execute(&mut to.connection, format!("alter subscription {quoted} disable")).await?;
        crash_point("subscription disabled");
        execute(&mut to.connection, format!("alter subscription {quoted} set (slot_name = none)")).await?;
        let copies = format!("slot_name like 'pg\\_{oid}\\_sync\\_%\\_{}'", to.identity.system);
        slot::dropped(&mut from.connection, &format!("slot_name = {} or {copies}", quote_literal(&name))).await?;
        crash_point("slots dropped");
        execute(&mut to.connection, format!("drop subscription {quoted}")).await?;
        crash_point("subscription dropped");
    }
    Ok(())
}

/// Drops the move's publication on a side.
pub async fn unpublish(connection: &mut PgConnection, names: &Names) -> Result<()> {
    execute(connection, format!("drop publication if exists {}", quote_ident(names.publication()))).await?;
    Ok(())
}
