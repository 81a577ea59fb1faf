//! The throw-away databases of a rehearsal, and its roles. Names and comments mark them, so the next run drops what a killed
//! run has left, and nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{PgConnection, query, query_scalar};

use super::locale::Locale;
use crate::database::{address, connect, execute, sqlstate, with_database};
use crate::exit::require;
use crate::moving::{Database, Side, crash_point};
use crate::names::{quote_ident, quote_literal};
use crate::output::note;

/// How long another rehearsal of the owner, or what is left of one, may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a database may take to lose its last session.
const END: Duration = Duration::from_secs(30);

/// The server of the throw-away databases.
pub struct Scratch {
    /// A session in a database that stays.
    pub admin: PgConnection,
    /// Whether splitctl's role is a superuser there.
    pub is_superuser: bool,
    /// Whether it is not the target's server.
    pub is_elsewhere: bool,
    url: String,
    owner_name: String,
    password: String,
}

impl Scratch {
    /// Connects, and drops what a killed run has left. Then it creates the visitor.
    ///
    /// # Errors
    /// If another rehearsal of the owner runs there, or the server refuses the role.
    pub async fn open(url: &str, owner_name: &str) -> Result<Self> {
        let mut admin = connect(url).await?;
        let is_superuser = "select rolsuper from pg_roles where rolname = current_user";
        let is_superuser = query_scalar(is_superuser).fetch_one(&mut admin).await?;
        if is_superuser {
            // The server would log the visitor's password, and no trigger of the user fires.
            let quiet =
                "set log_statement = none; set log_min_error_statement = panic; set session_replication_role = replica";
            execute(&mut admin, quiet).await?;
        }
        let password = query_scalar("select concat(gen_random_uuid(), gen_random_uuid())").fetch_one(&mut admin).await?;
        let mut scratch = Self {
            admin,
            is_superuser,
            is_elsewhere: false,
            url: url.to_owned(),
            owner_name: owner_name.to_owned(),
            password,
        };
        scratch.wait_for_others().await?;
        scratch.clear().await?;
        scratch.create_visitor().await?;
        crash_point("visitor made");
        Ok(scratch)
    }

    /// The operator's URL of a throw-away database.
    pub fn url(&self, side: Side) -> String {
        with_database(&self.url, &self.database(side))
    }

    /// The visitor's URL of a throw-away database.
    pub fn visitor_url(&self, side: Side) -> Result<String> {
        let mut url = url::Url::parse(&self.url(side))?;
        let visitor = self.visitor();
        let kept: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.set_query(None);
        for (name, value) in kept.iter().filter(|(name, _)| !["user", "password"].contains(&name.as_str())) {
            url.query_pairs_mut().append_pair(name, value);
        }
        if url.set_username(&visitor).and_then(|()| url.set_password(Some(&self.password))).is_err() {
            bail!("{}: its URL names no host, so no other role can log in: name one with --scratch", address(&self.url));
        }
        Ok(url.into())
    }

    /// A role with few rights: whatever runs the application's code in the rehearsal logs in as this role.
    pub fn visitor(&self) -> String {
        format!("splitctl_rehearsal_{}", self.owner_name)
    }

    /// The name of a throw-away database.
    pub fn database(&self, side: Side) -> String {
        format!("splitctl_rehearsal_{}_{side}", self.owner_name)
    }

    /// For messages.
    pub fn address(&self) -> String {
        address(&self.url)
    }

    /// Creates a database. Returns a note if the server cannot sort as the original does.
    pub async fn create_database(&mut self, side: Side, locale: &Locale) -> Result<Option<String>> {
        let (name, quoted) = (self.database(side), quote_ident(&self.database(side)));
        let create = format!("create database {quoted} owner {} template template0", quote_ident(&self.visitor()));
        let mut note = None;
        if let Err(error) = execute(&mut self.admin, format!("{create} {}", locale.options())).await {
            let plain = format!("{create} encoding {} locale 'C'", quote_literal(&locale.encoding));
            execute(&mut self.admin, plain).await.with_context(|| {
                format!(
                    "{name}: the throw-away database cannot be created (it needs CREATEDB): name a server with --scratch"
                )
            })?;
            let why = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            note = Some(format!("the stand-in of the {side} sorts text by the locale C, because the server said: {why}"));
        }
        crash_point("database made");
        let comment = quote_literal(&format!("{}: a stand-in of the {side}. Drop it if none runs", self.mark()));
        execute(&mut self.admin, format!("comment on database {quoted} is {comment}")).await?;
        Ok(note)
    }

    /// Creates a role that stands in for a missing one: `attributes` follow its name.
    pub async fn create_role(&mut self, name: &str, attributes: &str) -> Result<()> {
        let (role, comment) = (quote_ident(name), quote_literal(&format!("{}: a stand-in", self.mark())));
        let statements =
            format!("begin; create role {role} nologin {attributes}; comment on role {role} is {comment}; commit");
        if let Err(error) = execute(&mut self.admin, statements).await {
            execute(&mut self.admin, "rollback").await?;
            return Err(error).with_context(|| {
                format!(
                    "{name}: the role is missing there and cannot be created for the rehearsal: name a server with --scratch"
                )
            });
        }
        Ok(())
    }

    /// Drops databases and roles.
    ///
    /// # Errors
    /// What is left.
    pub async fn drop(&mut self) -> Result<()> {
        self.clear().await
    }

    fn mark(&self) -> String {
        format!("splitctl rehearsal of {}", self.owner_name)
    }

    async fn create_visitor(&mut self) -> Result<()> {
        let (role, comment) = (quote_ident(&self.visitor()), quote_literal(&format!("{}: the visitor", self.mark())));
        let filling = format!("grant pg_read_all_data, pg_write_all_data to {role};");
        let statements = format!(
            "begin;
             create role {role} login inherit password {};
             comment on role {role} is {comment};
             {}
             commit",
            quote_literal(&self.password),
            if self.is_superuser { filling.as_str() } else { "" }
        );
        if let Err(error) = execute(&mut self.admin, statements).await {
            execute(&mut self.admin, "rollback").await?;
            let what = format!("{}: the rehearsal's role cannot be created on {}", self.visitor(), self.address());
            return Err(error).context(what + " (it needs CREATEROLE, or a superuser): name a server with --scratch");
        }
        // `create database … owner` needs the membership.
        execute(&mut self.admin, format!("grant {role} to current_user")).await.or(Ok(()))
    }

    async fn wait_for_others(&mut self) -> Result<()> {
        let begun = Instant::now();
        let names = [Side::Source, Side::Target].map(|side| self.database(side));
        // This session keeps the lock until its end. The databases show who came by another database of this server.
        let lock = "select pg_try_advisory_lock(hashtextextended($1, 0))";
        loop {
            let has_lock: bool = query_scalar(lock).bind(self.mark()).fetch_one(&mut self.admin).await?;
            let holder = query_scalar(HOLDER).bind(&names[..]).bind(self.mark()).fetch_optional(&mut self.admin).await?;
            let holder: String = match (has_lock, holder) {
                (true, None) => return Ok(()),
                (_, holder) => holder.unwrap_or_else(|| "holder unknown".to_owned()),
            };
            let owner_name = &self.owner_name;
            require!(begun.elapsed() < PATIENCE, "{owner_name}: another rehearsal runs ({holder}): wait for its end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A database is ours if its comment or its owner says so.
    async fn clear(&mut self) -> Result<()> {
        let mark = format!("{}:", self.mark());
        self.mark_appliers().await?;
        for side in [Side::Target, Side::Source] {
            let name = self.database(side);
            let is_ours: Option<bool> =
                query_scalar(IS_OURS).bind(&name).bind(self.visitor()).bind(&mark).fetch_optional(&mut self.admin).await?;
            match is_ours {
                None => {}
                Some(true) => self.drop_database(side, &name).await?,
                Some(false) => bail!("{name}: a database of this name is there, and no rehearsal has created it: rename it"),
            }
        }
        for role in query_scalar::<_, String>(ROLES).bind(&mark).bind(self.visitor()).fetch_all(&mut self.admin).await? {
            match execute(&mut self.admin, format!("drop role {}", quote_ident(&role))).await {
                // The rehearsal of another owner uses the stand-in, or somebody has begun to use the role.
                Err(error) if sqlstate(&error).as_deref() == Some("2BP01") => {
                    note(format_args!("{role}: the rehearsal's role is used elsewhere on {}, so it stays", self.address()));
                }
                dropped => dropped.with_context(|| format!("{role}: the rehearsal's role cannot be dropped"))?,
            }
        }
        Ok(())
    }

    /// A move makes roles that apply its changes, named after the source's oid. A rehearsal that stopped has left them.
    async fn mark_appliers(&mut self) -> Result<()> {
        let source = self.database(Side::Source);
        let found = query_scalar::<_, String>(APPLIERS).bind(source).bind(&self.owner_name).fetch_all(&mut self.admin);
        for role in found.await? {
            let (role, comment) = (quote_ident(&role), quote_literal(&format!("{}: it applies changes", self.mark())));
            execute(&mut self.admin, format!("alter role {role} nologin; comment on role {role} is {comment}")).await?;
        }
        Ok(())
    }

    /// A subscription holds its database, and so does a slot that somebody uses.
    async fn drop_database(&mut self, side: Side, name: &str) -> Result<()> {
        let url = self.url(side);
        // A database that cannot be opened has lost its subscriptions, too: its drop was interrupted.
        if let Ok(mut database) = Database::open_alone(side, &url).await {
            drop_subscriptions(&mut database.connection).await?;
        }
        let begun = Instant::now();
        loop {
            query(END_SENDERS).bind(name).execute(&mut self.admin).await?;
            match execute(&mut self.admin, format!("drop database if exists {} with (force)", quote_ident(name))).await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > END => {
                    return Err(error).with_context(|| format!("{name}: the throw-away database cannot be dropped"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn drop_subscriptions(connection: &mut PgConnection) -> Result<()> {
    for name in query_scalar::<_, String>(SUBSCRIPTIONS).fetch_all(&mut *connection).await? {
        for change in ["disable", "set (slot_name = none)"] {
            execute(connection, format!("alter subscription {name} {change}")).await?;
        }
        execute(connection, format!("drop subscription {name}")).await?;
    }
    Ok(())
}

const HOLDER: &str = r"
    select format('process %s on database %s, since %s', pid, datname, backend_start::timestamp(0))
    from pg_stat_activity
    where pid <> pg_backend_pid()
      and (
        datname = any ($1) and application_name = 'splitctl'
        or pid in (
            select pid
            from pg_locks
            where locktype = 'advisory'
              and objsubid = 1
              and (classid::bigint << 32) | objid::bigint = hashtextextended($2, 0)
              and database = (select oid from pg_database where datname = current_database())))
    limit 1";

const IS_OURS: &str = r"
    select pg_get_userbyid(datdba) = $2 or coalesce(starts_with(shobj_description(oid, 'pg_database'), $3), false)
    from pg_database
    where datname = $1";

/// A role that somebody lets log in is nobody's stand-in any more.
const ROLES: &str = r"
    select rolname::text
    from pg_roles
    where starts_with(shobj_description(oid, 'pg_authid'), $1)
      and (not rolcanlogin or rolname = $2)";

const APPLIERS: &str = r"
    select r.rolname::text
    from pg_database d
    join pg_roles r on starts_with(r.rolname::text, format('splitctl_%s_%s_', d.oid, $2))
    where d.datname = $1";

const END_SENDERS: &str = r"
    select pg_terminate_backend(active_pid)
    from pg_replication_slots
    where database = $1
      and active_pid is not null";

const SUBSCRIPTIONS: &str = r"
    select quote_ident(subname)
    from pg_subscription
    where subdbid = (select oid from pg_database where datname = current_database())";
