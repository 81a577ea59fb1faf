//! A stream: logical replication from the side where the tables live to the other one, by publication, slot and
//! subscription.
//!
//! The slot is created before the subscription, by a statement of its own. Within one cluster, `create subscription` would
//! wait for itself; and the stream back begins from a slot that exists before the fence. All names follow from the move, so
//! a command finds what a crash left.

use anyhow::{Context, Result};
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use super::objects::{Names, escape};
use super::side::Database;
use super::subscription::Start;
use super::{applier, crash_point, marker, relations, slot, subscription};
use crate::database::execute;
use crate::manifest::Owner;
use crate::names::{Qualified, quote_ident};

/// Publishes the tables and the marker.
pub async fn publish(connection: &mut PgConnection, names: &Names, tables: &[Qualified]) -> Result<()> {
    let exists = query_scalar("select exists (select from pg_publication where pubname = $1)").bind(names.publication());
    if exists.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    // Truncate is refused on these tables during the move. Rows are published by the root, so each side routes them itself.
    let statement = format!(
        "create publication {} for table {}, {}
         with (publish = 'insert, update, delete', publish_via_partition_root = true)",
        quote_ident(names.publication()),
        relations::list(tables),
        marker::table(names.owner())
    );
    execute(connection, statement)
        .await
        .with_context(|| format!("{}: cannot be created (it needs the tables' owner, and CREATE)", names.publication()))
}

/// Takes tables off the publication: a stream that begins does not copy them.
pub async fn publish_without(connection: &mut PgConnection, names: &Names, tables: &[Qualified]) -> Result<()> {
    let published: Vec<Qualified> = query_as(PUBLISHED).bind(names.publication()).fetch_all(&mut *connection).await?;
    let left: Vec<Qualified> = published.into_iter().filter(|table| !tables.contains(table)).collect();
    let publication = quote_ident(names.publication());
    Ok(execute(connection, format!("alter publication {publication} set table {}", relations::list(&left))).await?)
}

/// Adds to a stream the tables that its publication lacks. The server copies each, and joins it to the stream.
pub async fn extend(from: &mut Database, to: &mut Database, name: &str, names: &Names, tables: &[Qualified]) -> Result<()> {
    let published: Vec<Qualified> = query_as(PUBLISHED).bind(names.publication()).fetch_all(&mut from.connection).await?;
    let lacking: Vec<Qualified> = tables.iter().filter(|table| !published.contains(table)).cloned().collect();
    if !lacking.is_empty() {
        let publication = quote_ident(names.publication());
        let add = format!("alter publication {publication} add table {}", relations::list(&lacking));
        execute(&mut from.connection, add).await?;
        crash_point("tables published");
    }
    // The marker is one more.
    let health = subscription::read_health(&mut to.connection, name).await?;
    if usize::try_from(health.tables)? <= tables.len() {
        let refresh = format!("alter subscription {} refresh publication with (copy_data = true)", quote_ident(name));
        execute(&mut to.connection, refresh).await?;
        crash_point("stream extended");
    }
    Ok(())
}

/// Drops the publication.
pub async fn unpublish(connection: &mut PgConnection, names: &Names) -> Result<()> {
    Ok(execute(connection, format!("drop publication if exists {}", quote_ident(names.publication()))).await?)
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin<'a> {
    /// With a copy of all rows.
    Copy,
    /// With the rows that were copied from the slot's snapshot.
    Copied,
    /// Behind this position in the WAL of the sending side. All changes before it came from the receiving side.
    Behind(&'a str),
}

/// Subscribes, unless that is done.
pub async fn subscribe(
    from: &mut Database,
    to: &mut Database,
    name: &str,
    names: &Names,
    owner: &Owner,
    begin: Begin<'_>,
) -> Result<()> {
    let enabled: Option<bool> = query_scalar(ENABLED).bind(name).fetch_optional(&mut to.connection).await?;
    if enabled == Some(true) {
        return Ok(());
    }
    if enabled.is_none() {
        let applier = applier::prepare(to, names, owner).await?;
        let start = match begin {
            Begin::Copy => Start::Copying,
            Begin::Copied => Start::AtOnce,
            Begin::Behind(_) => Start::Later,
        };
        let for_standbys = slot::is_for_standbys(from, name).await?;
        subscription::create(from, to, name, names.publication(), applier.as_deref(), start, for_standbys).await?;
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

/// Drops the subscriptions of the move whose other side is gone for good.
pub async fn forsake(to: &mut PgConnection, names: &Names) -> Result<()> {
    let known: Vec<Subscription> = query_as(SUBSCRIPTIONS).bind(names.all_streams()).fetch_all(&mut *to).await?;
    for Subscription { name, .. } in known {
        let name = quote_ident(&name);
        execute(&mut *to, format!("alter subscription {name} disable")).await?;
        execute(&mut *to, format!("alter subscription {name} set (slot_name = none)")).await?;
        execute(&mut *to, format!("drop subscription {name}")).await?;
    }
    Ok(())
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

const PUBLISHED: &str = r"
    select n.nspname::text as schema, c.relname::text as name
    from pg_publication p
    join pg_publication_rel r on r.prpubid = p.oid
    join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace
    where p.pubname = $1";

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

const SUBSCRIPTIONS: &str = r"
    select oid::int8, subname::text as name
    from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())
      and subname::text like $1";
