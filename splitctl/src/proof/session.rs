//! A session of the application's role on one side, in a transaction that is always rolled back.
//!
//! It is an operator's session. It gives the rights that the next switch gives, takes the settings that a login of the role
//! would have, and becomes the role. Before the switch the role itself could not use the tables there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, Row, ValueRef, query_as};

use crate::database::{connect, execute};
use crate::moving::plan::servers::OF_SESSIONS;
use crate::moving::{Database, Opening};
use crate::names::{quote_ident, quote_literal};

/// How long it holds locks on tables at most, before it begins its transaction again.
const HELD: Duration = Duration::from_millis(500);

/// No lock is waited for longer, and a statement ends. The server ends a session that falls silent.
const LIMITS: &str = "
    set local lock_timeout = '1s';
    set local statement_timeout = '10s';
    set local idle_in_transaction_session_timeout = '60s';
    set local plan_cache_mode = force_generic_plan;
    set local jit = off";

/// Whether the session may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It plans statements, and runs none.
    ReadOnly,
    /// It writes, with the fence's triggers taken off.
    Writing,
}

/// A setting with which the role's sessions begin.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(super) struct Setting {
    pub name: String,
    pub value: String,
}

/// The session.
pub(super) struct Session {
    pub connection: PgConnection,
    /// Begins the transaction, as one message.
    opening: String,
    begun: Instant,
}

/// What the application's statements depend on, as a session of its role has it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Settings by name, and the encoding and the schemas in which names are found.
    pub settings: BTreeMap<String, String>,
}

impl Session {
    /// Begins it. `more` are settings besides those that the role and the database have.
    pub async fn open(
        database: &Database,
        role: &str,
        opening: &Opening,
        more: &[Setting],
        mode: Mode,
    ) -> Result<(Self, Facts)> {
        let mut connection = connect(&keeping_statements(&database.url)?).await?;
        // Messages are read by people, and name objects.
        let messages = if database.superuser { "set lc_messages = 'C'" } else { "" };
        execute(&mut connection, format!("reset all; {messages}")).await?;
        let mut settings = read_settings(&mut connection, database, role).await?;
        settings.extend_from_slice(more);
        let settings = take_valid(&mut connection, settings).await?;
        let becoming = becoming(database, role, opening, &settings, mode);
        execute(&mut connection, becoming.clone()).await.with_context(|| {
            format!("{}: a session cannot be opened as {role} with the rights that it would have", database.address())
        })?;
        let facts: Vec<(String, String)> = query_as(AssertSqlSafe(FACTS.replace("{of_sessions}", OF_SESSIONS)))
            .persistent(false)
            .fetch_all(&mut connection)
            .await?;
        // `pg_settings` does not show the application's own.
        let own = settings.into_iter().filter(|setting| setting.name.contains('.'));
        let facts = Facts { settings: own.map(|setting| (setting.name, setting.value)).chain(facts).collect() };
        let read_only = if mode == Mode::ReadOnly { "; set local transaction_read_only = on" } else { "" };
        let mut session = Self { connection, opening: format!("{becoming}; {LIMITS}{read_only}"), begun: Instant::now() };
        session.begin_again().await?;
        Ok((session, facts))
    }

    /// Begins the transaction again if it has held its locks for long. Prepared statements stay.
    pub async fn release_locks(&mut self) -> Result<(), sqlx::Error> {
        if self.begun.elapsed() > HELD { self.begin_again().await } else { Ok(()) }
    }

    /// Rolls the transaction back, also a failed one, and begins it again.
    pub async fn begin_again(&mut self) -> Result<(), sqlx::Error> {
        execute(&mut self.connection, format!("rollback; {}", self.opening)).await?;
        self.begun = Instant::now();
        Ok(())
    }

    /// The rows of statements as text, in one message to the server.
    pub async fn fetch(&mut self, statements: String) -> Result<Vec<PgRow>, sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(statements)).fetch_all(&mut self.connection).await
    }

    /// Rolls everything back.
    pub async fn close(mut self) -> Result<()> {
        execute(&mut self.connection, "rollback").await?;
        Ok(self.connection.close().await?)
    }
}

/// The URL for a session that keeps all statements that it prepares.
fn keeping_statements(url: &str) -> Result<String> {
    let mut url = url::Url::parse(url).context("the URL is none")?;
    url.query_pairs_mut().append_pair("statement-cache-capacity", "1000000");
    Ok(url.into())
}

/// Begins a transaction, gives the rights, takes the settings, and becomes the role: one message.
fn becoming(database: &Database, role: &str, opening: &Opening, settings: &[Setting], mode: Mode) -> String {
    let (of_role, settings): (Vec<_>, Vec<_>) = settings.iter().partition(|setting| setting.name == "role");
    // The database may have made transactions read-only.
    let mut statements = vec![format!("begin read write; {LIMITS}")];
    if database.superuser {
        // No event trigger runs as a superuser.
        statements.push("set local session_replication_role = replica".to_owned());
    }
    statements.extend_from_slice(&opening.grants);
    if mode == Mode::Writing {
        statements.extend_from_slice(&opening.reopen);
    }
    statements.extend(settings.into_iter().map(Setting::statement));
    let role = quote_ident(role);
    if database.superuser {
        statements.push("set local pg_stat_statements.track = 'none'".to_owned());
        statements.push("set local session_replication_role = origin".to_owned());
        statements.push(format!("set local session authorization {role}"));
    } else {
        statements.push(format!("set local role {role}"));
    }
    statements.extend(of_role.into_iter().map(Setting::statement));
    statements.join("; ")
}

/// The first value of a row, which came as text.
pub(super) fn text(row: &PgRow) -> Result<String, sqlx::Error> {
    let value = row.try_get_raw(0)?;
    Ok(if value.is_null() { String::new() } else { value.as_str().unwrap_or_default().to_owned() })
}

impl Setting {
    fn statement(&self) -> String {
        format!("select set_config({}, {}, true)", quote_literal(&self.name), quote_literal(&self.value))
    }
}

/// The settings with which a session of the role begins. The operator's own are replaced by those of the server.
async fn read_settings(connection: &mut PgConnection, database: &Database, role: &str) -> Result<Vec<Setting>, sqlx::Error> {
    let statement = SETTINGS.replace("{file}", if database.superuser { IN_FILES } else { "null" });
    query_as(AssertSqlSafe(statement)).bind(role).fetch_all(connection).await
}

/// Leaves out the settings that the server refuses: at a login it ignores them.
async fn take_valid(connection: &mut PgConnection, settings: Vec<Setting>) -> Result<Vec<Setting>, sqlx::Error> {
    let mut valid = Vec::new();
    for setting in settings {
        match execute(connection, format!("begin; {}", setting.statement())).await {
            Ok(()) => valid.push(setting),
            Err(sqlx::Error::Database(_)) => {}
            Err(error) => return Err(error),
        }
        execute(connection, "rollback").await?;
    }
    Ok(valid)
}

/// The value of the configuration files: our driver sets some values itself, and hides it.
const IN_FILES: &str = "(
    select f.setting
    from pg_file_settings f
    where lower(f.name) = lower(s.name)
      and f.applied
    order by f.seqno desc
    limit 1
)";

const SETTINGS: &str = r"
    with of_role as (
        select distinct on (lower(split_part(c.pair, '=', 1)))
            split_part(c.pair, '=', 1) as name,
            substr(c.pair, strpos(c.pair, '=') + 1) as value
        from pg_db_role_setting o
        left join pg_database d on d.oid = o.setdatabase
        left join pg_roles r on r.oid = o.setrole
        cross join lateral unnest(o.setconfig) c (pair)
        where (o.setdatabase = 0 or d.datname = current_database())
          and (o.setrole = 0 or r.rolname = $1)
        order by lower(split_part(c.pair, '=', 1)), o.setrole = 0, o.setdatabase = 0
    )
    select name, value
    from of_role
    union all
    select s.name, coalesce({file}, s.boot_val)
    from pg_settings s
    where s.source in ('global', 'database', 'user', 'database user', 'client')
      and s.name not in ('application_name', 'client_encoding')
      and s.boot_val is not null
      and not exists (select from of_role o where lower(o.name) = lower(s.name))
    order by 1";

const FACTS: &str = r"
    select s.name, current_setting(s.name)
    from pg_catalog.pg_settings s
    where {of_sessions}
      -- A library that happens to be loaded has its defaults.
      and (position('.' in s.name) = 0 or s.source <> 'default')
    union all
    select 'search_path (the schemas that it finds)', array_to_string(current_schemas(false), ', ')
    union all
    select 'the roles that it is a member of', coalesce(string_agg(r.rolname, ', ' order by r.rolname), 'none')
    from pg_catalog.pg_roles r
    where r.rolname <> current_user
      and pg_has_role(current_user, r.oid, 'member')
    union all
    select 'server_encoding', current_setting('server_encoding')";
