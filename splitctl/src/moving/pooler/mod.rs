//! Poolers that a switch turns: their clients wait while it is made, and go on at the side that has the rows.
//!
//! All commands to the poolers come from one process, the [`guard`], which outlives a splitctl that is stopped or killed. So
//! no command can arrive late, and nobody waits longer than `--max-pause`.

mod console;
mod entry;
pub mod guard;
pub mod hook;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Move;
use super::side::Side;
use crate::endpoint::Endpoint;
use crate::exit::{Refused, require};
use crate::output::note;
use console::Console;
use entry::Entry;
pub use turn::turn;

/// The first version that keeps prepared statements where a transaction may get another connection.
const KEEPS_STATEMENTS: (u32, u32) = (1, 21);

/// Keys of a pooler's entry, such as `host`, with their values.
pub type Keys = BTreeMap<String, String>;

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// It pauses one database, after the last transaction there.
    PgBouncer,
    /// It pauses all databases, each client after its transaction, and says so at once.
    Odyssey,
}

/// A pooler, and the database that it calls by a name of its own.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pooler {
    /// Which program it is.
    pub kind: Kind,
    /// The Postgres URL of its console. It may hold a password.
    console: String,
    /// Its host and port, for messages.
    address: String,
    /// The database, as clients of the pooler name it.
    pub database: String,
    /// The file with the database's entry. Without one, `--after-switch` changes what the pooler's address leads to.
    pub file: Option<PathBuf>,
    /// What the entry says for each side.
    source: Keys,
    target: Keys,
}

/// Without the password.
impl fmt::Display for Pooler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the pooler {} ({})", self.address, self.database)
    }
}

impl Pooler {
    /// Reads a URL, or the variable that holds it (`$NAME`).
    ///
    /// # Errors
    /// What is wrong with it. No message repeats the URL.
    pub fn parse(text: &str, the_move: &Move) -> Result<Self> {
        let url = match text.strip_prefix('$') {
            Some(name) => std::env::var(name).ok().with_context(|| format!("--pooler: {name} is not set"))?,
            None => text.to_owned(),
        };
        Self::from_url(&url, &the_move.source.url, &the_move.target.url).context("--pooler")
    }

    fn from_url(url: &str, source: &str, target: &str) -> Result<Self> {
        const SHAPE: &str = "write it as pgbouncer://admin@host:6432/database, or odyssey://…";
        let mut url = Url::parse(url).ok().context(SHAPE)?;
        let (kind, console) = match url.scheme() {
            "pgbouncer" => (Kind::PgBouncer, "pgbouncer"),
            "odyssey" => (Kind::Odyssey, "console"),
            _ => bail!(SHAPE),
        };
        let database = url.path().trim_start_matches('/');
        let database = percent_encoding::percent_decode_str(database).decode_utf8()?.into_owned();
        ensure!(!database.is_empty() && url.host_str().is_some_and(|host| !host.is_empty()), SHAPE);
        let mut pooler = Self {
            kind,
            console: String::new(),
            address: format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(6432)),
            database,
            file: None,
            source: address_of(source)?,
            target: address_of(target)?,
        };
        let (mut console, mut of_tls) = (console.to_owned(), Vec::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "console" => console = value.into_owned(),
                "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => of_tls.push((name.into_owned(), value.into_owned())),
                _ => pooler.read_parameter(&name, &value)?,
            }
        }
        let of_console = |url: &mut Url| {
            if url.port().is_none() {
                url.set_port(Some(6432))?;
            }
            url.set_scheme("postgres")?;
            url.set_path(&format!("/{console}"));
            url.set_query(None);
            if !of_tls.is_empty() {
                url.query_pairs_mut().extend_pairs(&of_tls);
            }
            Ok(())
        };
        of_console(&mut url).map_err(|()| anyhow!(SHAPE))?;
        pooler.console = url.into();
        pooler.check_parameters()?;
        Ok(pooler)
    }

    fn read_parameter(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "file" => self.file = Some(PathBuf::from(value)),
            "source" => self.source.extend(entry::keys(value).context("its parameter `source`")?),
            "target" => self.target.extend(entry::keys(value).context("its parameter `target`")?),
            _ => bail!("its parameter `{name}` is none of file, source, target, console, and sslmode and the like"),
        }
        Ok(())
    }

    fn check_parameters(&self) -> Result<()> {
        ensure!(
            self.kind == Kind::PgBouncer || self.file.is_none(),
            "its parameter `file`: only entries of PgBouncer are rewritten; change Odyssey's file by --after-switch"
        );
        ensure!(
            self.source.keys().eq(self.target.keys()),
            "its parameters `source` and `target` must name the same keys: each switch writes those of its side"
        );
        Ok(())
    }

    /// What the entry says for a side.
    pub fn keys(&self, side: Side) -> &Keys {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// Checks, before anybody waits, that the pooler can be paused and turned, and that its clients are where the tables
    /// are or were.
    async fn check(&self, lives: Side, is_ours: bool) -> Result<()> {
        let mut console = Console::open(self).await?;
        console.check_version(KEEPS_STATEMENTS).await?;
        if self.kind == Kind::Odyssey {
            return Ok(());
        }
        let Some(known) = console.find_database().await? else {
            bail!(Refused(format!("{self}: it has no such database: correct the URL's path")))
        };
        require!(
            known.pool_mode != "session",
            "{self}: with `pool_mode = session` a pause waits until clients disconnect: use `pool_mode = transaction`"
        );
        require!(
            !known.is_paused || is_ours,
            "{self}: it is paused, and not by this move. Find out by whom, and resume it: `resume {}`",
            self.database
        );
        let Some(file) = &self.file else { return Ok(()) };
        let entry = Entry::read(file, &self.database)?;
        entry.try_to_write()?;
        let side = [lives, lives.other()].into_iter().find(|side| entry.leads_to(self.keys(*side)));
        require!(
            side.is_some(),
            "{self}: its entry in {} leads to {}, which is neither {} (source) nor {} (target). If the pooler knows the \
             sides by other addresses, add them to its URL: `&source=host=… port=… dbname=…`, and `&target=…`",
            file.display(),
            entry.address(),
            entry::address(&self.source),
            entry::address(&self.target)
        );
        // This also finds out whether the pooler reads this file.
        console.reload().await?;
        let known = console.find_database().await?.context("its database is gone")?;
        require!(
            known.leads_to(&entry.said()),
            "{self}: it leads to {}, but its entry in {} says {}: name the file that the pooler reads",
            known.address(),
            file.display(),
            entry.address()
        );
        Ok(())
    }
}

/// Checks poolers before a switch. `is_ours` says whether an earlier run may have paused them; then they go on.
///
/// # Errors
/// [`crate::exit::Refused`] with what stands in the way. No pooler is paused then.
pub async fn check(poolers: &[Pooler], lives: Side, is_ours: bool, has_hook: bool) -> Result<()> {
    for pooler in poolers {
        require!(
            pooler.file.is_some() || has_hook,
            "{pooler}: nothing says how its clients get to the other side: add `?file=…` with the file of its entry to the \
             URL, or use --after-switch"
        );
        pooler.check(lives, is_ours).await?;
    }
    if is_ours && !poolers.is_empty() {
        report(&turn(poolers, lives, None).await);
    }
    Ok(())
}

/// Prints what did not work with a pooler.
pub fn report(failures: &[String]) {
    for failure in failures {
        note(format_args!("warning: {failure}"));
    }
}

/// The address that the operator's URL has.
fn address_of(url: &str) -> Result<Keys> {
    let endpoint = Endpoint::of_this_process(url)?;
    let known = entry::ADDRESS.iter().filter_map(|key| Some(((*key).to_owned(), endpoint.get(key)?.to_owned())));
    Ok(known.collect())
}

#[cfg(test)]
mod tests {
    use super::{Kind, Pooler, Side};

    const SIDES: (&str, &str) = ("postgres://me:secret@old:5/shared", "postgres://me@new/shop");

    #[test]
    fn a_url_names_the_console_the_database_and_what_its_entry_says() {
        let url =
            "pgbouncer://admin:p%40ss@pool:6432/orders?file=/etc/databases.ini&sslmode=require&target=host=10.0.0.2+port=7";
        let pooler = Pooler::from_url(url, SIDES.0, SIDES.1).expect("a URL");
        assert_eq!(pooler.console, "postgres://admin:p%40ss@pool:6432/pgbouncer?sslmode=require");
        assert_eq!(pooler.to_string(), "the pooler pool:6432 (orders)");
        let said = |side| pooler.keys(side).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        assert_eq!(said(Side::Source), ["dbname=shared", "host=old", "port=5"]);
        assert_eq!(said(Side::Target), ["dbname=shop", "host=10.0.0.2", "port=7"]);
        let other = Pooler::from_url("odyssey://admin@pool/orders", SIDES.0, SIDES.1).expect("a URL");
        assert_eq!((other.kind, other.console.as_str()), (Kind::Odyssey, "postgres://admin@pool:6432/console"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_being_repeated() {
        for (url, reason) in [
            ("postgres://admin:secret@pool/orders", "pgbouncer://"),
            ("pgbouncer://admin:secret@pool", "pgbouncer://"),
            ("pgbouncer://admin:secret@pool/orders?files=/x", "`files`"),
            ("pgbouncer://admin:secret@pool/orders?target=secret", "`target`"),
            ("pgbouncer://admin:secret@pool/orders?target=user=secret", "the same keys"),
            ("odyssey://admin:secret@pool/orders?file=/x", "--after-switch"),
        ] {
            let error = Pooler::from_url(url, SIDES.0, SIDES.1).err().expect(url);
            let error = format!("{error:#}");
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
    }
}
