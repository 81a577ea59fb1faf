//! A stream: logical replication from the side where the tables live to the other one, as publication, slot and subscription.
//!
//! The slot is made by a statement of its own before the subscription: within one cluster, `create subscription` would wait for
//! itself, and a slot made before the fence is what the way back starts from. All names can be told from the move, so what a
//! crash left is found again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::side::Side;
use super::{crash_point, marker};
use crate::database::{execute, sqlstate};
use crate::exit::require;
use crate::names::{Qualified, quote_ident, quote_literal};

/// How long a new slot may wait for the transactions that are open.
const SLOT_PATIENCE: &str = "10s";
/// How long whoever uses a slot may take to let it go.
const RELEASE: Duration = Duration::from_secs(20);

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
    fn all_streams(&self, name: &str) -> String {
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

/// Makes the slot of a stream, if there is none.
///
/// # Errors
/// If open transactions are in its way: which.
pub async fn make_slot(from: &mut PgConnection, slot: &str) -> Result<()> {
    let status = sqlx::query_scalar::<_, Option<String>>("select wal_status from pg_replication_slots where slot_name = $1");
    match status.bind(slot).fetch_optional(&mut *from).await? {
        Some(Some(status)) if status == "lost" => {
            bail!("the slot {slot} has lost its WAL (max_slot_wal_keep_size): `splitctl abort`, and copy again")
        }
        Some(_) => return Ok(()),
        None => {}
    }
    execute(from, format!("set statement_timeout = '{SLOT_PATIENCE}'")).await?;
    let made = sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')").bind(slot).execute(&mut *from).await;
    execute(from, "set statement_timeout = 0").await?;
    match made {
        Ok(_) => Ok(()),
        Err(error) if sqlstate(&error).as_deref() == Some("57014") => {
            let open = long_transactions(from, Duration::ZERO).await?;
            require!(
                false,
                "a replication slot waits for every open write transaction of the cluster, and these did not end within {SLOT_PATIENCE}: {}. End them, and repeat the command",
                open.join("; ")
            );
            Ok(())
        }
        Err(error) => Err(error)
            .context("a replication slot cannot be made (it takes wal_level = logical, a free slot, and REPLICATION)"),
    }
}

/// Transactions of the whole cluster that have written and been open for longer than this.
pub async fn long_transactions(connection: &mut PgConnection, age: Duration) -> Result<Vec<String>> {
    let open = sqlx::query_scalar(
        "select format('process %s (%s) in database %s, open for %s', pid, coalesce(nullif(application_name, ''), usename, backend_type),
             coalesce(datname, '–'), (now() - xact_start)::interval(0))
         from pg_stat_activity
         where backend_xid is not null and pid <> pg_backend_pid() and xact_start < now() - make_interval(secs => $1)
         union all
         select format('prepared transaction %L in database %s, since %s', gid, database, prepared::timestamp(0))
         from pg_prepared_xacts
         order by 1",
    );
    Ok(open.bind(age.as_secs_f64()).fetch_all(connection).await?)
}

/// Subscribes, if that has not been done. `copy`: what is there already comes first.
pub async fn subscribe(to: &mut PgConnection, names: &Names, number: i64, url: &str, copy: bool) -> Result<()> {
    let name = names.stream(number);
    let exists = sqlx::query_scalar::<_, bool>(
        "select subenabled from pg_subscription where subname = $1 and subdbid = (select oid from pg_database where datname = current_database())",
    );
    match exists.bind(&name).fetch_optional(&mut *to).await? {
        Some(true) => return Ok(()),
        Some(false) => {
            execute(to, format!("alter subscription {} enable", quote_ident(&name))).await?;
            return Ok(());
        }
        None => {}
    }
    let statement = format!(
        "create subscription {0} connection {1} publication {2} with (create_slot = false, slot_name = {0}, copy_data = {copy})",
        quote_ident(&name),
        quote_literal(&with_application_name(url, &name)),
        quote_ident(names.publication()),
    );
    let done = execute(to, statement).await;
    done.map_err(|error| conceal(&error, url)).context(
        "the subscription cannot be made (it takes a superuser, from Postgres 16 on pg_create_subscription and CREATE; and this server must reach the other one)",
    )
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
    let text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let password = url::Url::parse(url).ok().and_then(|url| url.password().map(str::to_owned));
    match password {
        Some(password) if !password.is_empty() => anyhow::anyhow!(text.replace(&password, "…")),
        _ => anyhow::anyhow!(text),
    }
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

/// Bytes of WAL that a slot holds back on its server; `None` if there is no such slot.
pub async fn retained(from: &mut PgConnection, slot: &str) -> Result<Option<i64>> {
    let bytes = sqlx::query_scalar(
        "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint from pg_replication_slots where slot_name = $1",
    );
    Ok(bytes.bind(slot).fetch_optional(from).await?)
}

/// Ends a stream: the slots first, while the subscription still tells which they are.
pub async fn end(from: &mut Side, to: &mut Side, names: &Names, number: i64) -> Result<()> {
    end_subscriptions(from, to, &format!("s.subname = {}", quote_literal(&names.stream(number)))).await?;
    drop_slots(&mut from.connection, &format!("slot_name = {}", quote_literal(&names.stream(number)))).await
}

/// Ends all streams of the move, in both directions.
pub async fn end_all(source: &mut Side, target: &mut Side, names: &Names) -> Result<()> {
    end_subscriptions(source, target, &names.all_streams("s.subname::text")).await?;
    end_subscriptions(target, source, &names.all_streams("s.subname::text")).await?;
    let all = names.all_streams("slot_name::text");
    drop_slots(&mut source.connection, &all).await?;
    drop_slots(&mut target.connection, &all).await
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
        drop_slots(&mut from.connection, &format!("slot_name = {} or {copies}", quote_literal(&name))).await?;
        crash_point("slots dropped");
        execute(&mut to.connection, format!("drop subscription {quoted}")).await?;
        crash_point("subscription dropped");
    }
    Ok(())
}

/// Drops slots; whoever still uses one is given a moment, and then ended.
async fn drop_slots(connection: &mut PgConnection, condition: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let used = format!("select slot_name::text, active_pid from pg_replication_slots where {condition}");
        let rows = sqlx::query(AssertSqlSafe(used)).fetch_all(&mut *connection).await?;
        let mut left = 0;
        for row in rows {
            let (name, user): (String, Option<i32>) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(user) = user {
                left += 1;
                if begun.elapsed() > Duration::from_secs(1) {
                    sqlx::query("select pg_terminate_backend($1)").bind(user).execute(&mut *connection).await?;
                }
                continue;
            }
            match sqlx::query("select pg_drop_replication_slot($1)").bind(&name).execute(&mut *connection).await {
                Ok(_) => {}
                // In use again, or dropped by another.
                Err(error) if matches!(sqlstate(&error).as_deref(), Some("55006" | "42704")) => left += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > RELEASE {
            bail!("a replication slot of the move is in use and was not let go within {RELEASE:?}: repeat the command");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Drops the move's publication on a side.
pub async fn unpublish(connection: &mut PgConnection, names: &Names) -> Result<()> {
    execute(connection, format!("drop publication if exists {}", quote_ident(names.publication()))).await?;
    Ok(())
}
