//! Subscriptions: the connection of a stream, which holds a password, and how it is.

use anyhow::{Context, Result, anyhow};
use sqlx::{Connection, FromRow, PgConnection, query_as};

use super::applier;
use super::side::{Database, Side};
use crate::database::execute;
use crate::endpoint::Endpoint;
use crate::exit::Refused;
use crate::names::{quote_ident, quote_literal};

/// How long the server may take to connect to the other one.
const TRIAL: &str = "15s";

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, and the server copies the rows.
    Copying,
    /// At once, with the rows that the tables have.
    AtOnce,
    /// Once its position is set.
    Later,
}

/// Creates a subscription to a slot that exists, which is for standbys or is not.
pub async fn create(
    from: &Database,
    to: &mut Database,
    name: &str,
    publication: &str,
    applier: Option<&str>,
    start: Start,
    for_standbys: bool,
) -> Result<()> {
    let mut statement = hide_connection(&creation(from, to, name, publication, start, for_standbys));
    if let Some(role) = applier {
        statement += &format!("; alter subscription {} owner to {}", quote_ident(name), quote_ident(role));
    }
    // The first worker must not start before the subscription has its owner.
    let created = run_connected(from, to, name, &format!("begin; {statement}; commit")).await?;
    created.map_err(|error| conceal(&error, &from.from_other)).with_context(|| {
        format!(
            "{name}: the subscription cannot be created (it needs a superuser, or pg_create_subscription and CREATE from \
             Postgres 16 on; and the {} must reach the other side)",
            to.side
        )
    })
}

/// The connection string holds a password. So it is a setting of the session, and only what runs inside the server has it:
/// logs, `pg_stat_activity` and `pg_stat_statements` show the statement of the client.
const CONNECTION: &str = "splitctl.connection";

/// Runs a statement in a session of its own that knows the connection string.
async fn run_connected(from: &Database, to: &Database, name: &str, statement: &str) -> Result<Result<(), sqlx::Error>> {
    let mut session = to.connect_with(Some((CONNECTION, &connection_string(from, name)))).await?;
    if to.superuser {
        // A warning in the log has the text of the statement as its context.
        execute(&mut session, "set log_min_messages = error").await?;
    }
    let done = execute(&mut session, statement).await;
    session.close().await?;
    Ok(done)
}

/// It names the connection in `pg_stat_activity` and `pg_stat_replication` of the other side.
fn connection_string(to: &Database, name: &str) -> String {
    let mut endpoint = to.from_other.clone();
    endpoint.set("application_name", name);
    endpoint.connection_string()
}

/// The statement, with `%L` for the connection string.
fn creation(from: &Database, to: &Database, name: &str, publication: &str, start: Start, for_standbys: bool) -> String {
    let (enabled, copies) = (start != Start::Later, start == Start::Copying);
    // From Postgres 16 on, changes that were applied here are not sent back. They are applied by the subscription's role,
    // because the fence has revoked the rights of the tables' owner. That role has no password for the other side, so the
    // one in the connection need not be used.
    let mut options = String::new();
    if to.version >= 16 {
        options += ", run_as_owner = true";
    }
    if applier::applies(to) {
        options += ", password_required = false";
    }
    if from.version >= 16 && to.version >= 16 {
        options += ", origin = none";
    }
    // The server does not compare this with the slot. Slots for the copies of tables follow it.
    if for_standbys && to.version >= 17 {
        options += ", failover = true";
    }
    format!(
        "create subscription {name} connection %L publication {}
         with (create_slot = false, slot_name = {name}, enabled = {enabled}, copy_data = {copies}{options})",
        quote_ident(publication),
        name = quote_ident(name)
    )
}

/// Runs a statement of [`creation`] with the connection string of the session. An error has the text of the statement as its
/// context, unless it is raised anew.
fn hide_connection(creation: &str) -> String {
    format!(
        "do $splitctl$
         begin
             execute format('{creation}', current_setting('{CONNECTION}'));
         exception when others then
             raise exception using errcode = sqlstate, message = sqlerrm;
         end
         $splitctl$"
    )
}

/// Gives a stream that exists the address and the password that the manifest has now: they may change during a move. Only a
/// superuser may compare them; without one, a stream that runs keeps what it has.
pub async fn reconnect(from: &Database, to: &mut Database, name: &str) -> Result<()> {
    let health = read_health(&mut to.connection, name).await?;
    if !health.exists || (!to.superuser && health.works) {
        return Ok(());
    }
    let differs = match to.superuser {
        true => format!("s.subconninfo <> current_setting('{CONNECTION}')"),
        false => "true".to_owned(),
    };
    let statement = format!(
        "do $splitctl$
         begin
             if exists (
                 select
                 from pg_subscription s
                 join pg_database d on d.oid = s.subdbid
                 where s.subname = {}
                   and d.datname = current_database()
                   and {differs}
             ) then
                 execute format('alter subscription {} connection %L', current_setting('{CONNECTION}'));
             end if;
         exception when others then
             raise exception using errcode = sqlstate, message = sqlerrm;
         end
         $splitctl$",
        quote_literal(name),
        quote_ident(name)
    );
    run_connected(from, to, name, &statement)
        .await?
        .map_err(|error| conceal(&error, &from.from_other))
        .with_context(|| format!("{name}: the stream's connection cannot be changed to {}", from.from_other))
}

/// Tries whether the server of `to` can subscribe to `from`: it connects, logs in for replication and looks for a
/// publication. There is none of that name, which Postgres only warns of: a real one needs its tables on both sides,
/// and a copy that was killed has not created them all. The subscription is rolled back.
///
/// # Errors
/// [`Refused`] with the address, its key in the manifest, and the reason.
pub async fn try_subscription(from: &Database, to: &mut Database) -> Result<()> {
    let creation = creation(from, to, "splitctl_try", "splitctl_try", Start::Later, false);
    // The warning, with its context, goes to the log, and only a superuser can stop that.
    let statement = match to.superuser {
        true => hide_connection(&creation),
        false => creation.replacen("%L", &quote_literal(&connection_string(from, "splitctl_try")), 1),
    };
    let statement = format!("begin; set local statement_timeout = '{TRIAL}'; {statement}; rollback");
    run_connected(from, to, "splitctl_try", &statement).await?.map_err(|error| {
        let key = match from.side {
            Side::Source => "source_from_target",
            Side::Target => "target_from_source",
        };
        Refused(format!(
            "{}: the server of the {} cannot subscribe there ({:#}). Correct `{key}` in the manifest, pg_hba.conf, the \
             network or the login. Nothing was changed",
            from.from_other,
            to.side,
            conceal(&error, &from.from_other)
        ))
        .into()
    })
}

/// The error without a password.
fn conceal(error: &sqlx::Error, endpoint: &Endpoint) -> anyhow::Error {
    let text = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    anyhow!(endpoint.conceal(&text))
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
