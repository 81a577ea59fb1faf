//! The move of one owner's tables to a database of their own.
//!
//! Every act is one that may be repeated: what is there already is left, what is gone already is gone. A command that is run
//! again after a crash therefore does what is left of it. Facts are read from the databases, and not from what a command
//! believes to have done; the journal keeps what no database can tell.

pub mod abort;
pub mod complete;
pub mod copy;
pub mod crossings;
mod epochs;
mod fence;
mod journal;
mod marker;
pub mod plan;
mod progress;
mod relations;
mod rights;
mod schema;
mod sequences;
mod side;
mod slot;
pub mod status;
mod stream;
pub mod switch;
pub mod verify;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::PgConnection;

use crate::database::connect;
use crate::exit::require;
use crate::manifest::{Manifest, Owner};
pub use fence::{Locking, patiently};
use journal::State;
pub use side::{Place, Side};

/// How long to wait for another `splitctl`, which may have been killed a moment ago.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the process as `kill -9` would, at the point that `SPLITCTL_DIE_AT` counts to: for the tests of crashes. A release
/// build has no such points.
fn crash_point(name: &str) {
    if cfg!(debug_assertions)
        && let Some(wanted) = std::env::var("SPLITCTL_DIE_AT").ok().and_then(|number| number.parse::<usize>().ok())
    {
        static PASSED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        if PASSED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == wanted {
            eprintln!("dying at point {wanted}: {name}");
            std::process::abort();
        }
    }
}

/// A move as it stands, held by this process alone.
pub struct Move {
    /// The manifest.
    pub manifest: Manifest,
    /// Whose tables move.
    pub owner: String,
    /// The shared database.
    pub source: Side,
    /// The owner's own.
    pub target: Side,
    /// What the journal and both databases say.
    state: Option<State>,
    /// Holds the lock that lets one process at a time act: it goes with the session, however this process ends.
    lock: Option<PgConnection>,
}

impl Move {
    /// Connects to both databases, and takes the lock that lets one process at a time act.
    ///
    /// # Errors
    /// What is wrong with the manifest, which database does not answer, or who holds the lock.
    pub async fn open(manifest: &Path, owner: &str) -> Result<Self> {
        let mut opened = Self::look(manifest, owner).await?;
        opened.lock = Some(lock(&opened.source).await?);
        // What was read before the lock was held may be past.
        opened.read_state().await?;
        Ok(opened)
    }

    /// Connects to both databases, only to look.
    ///
    /// # Errors
    /// As [`Move::open`], but for the lock.
    pub async fn look(manifest: &Path, owner: &str) -> Result<Self> {
        let mut opened = Self::connect(manifest, owner).await?;
        opened.read_state().await?;
        Ok(opened)
    }

    async fn connect(manifest: &Path, owner: &str) -> Result<Self> {
        let manifest = Manifest::read(manifest)?;
        let moving = manifest.owner(owner)?;
        let target = moving.target.as_ref();
        let target = target.with_context(|| format!("the manifest names no target for {owner}: owners.{owner}.target"))?;
        let (source_url, target_url) =
            (manifest.source.resolve("source")?, target.resolve(&format!("owners.{owner}.target"))?);
        let seen = |url: &Option<crate::manifest::Url>, place: &str, otherwise: &str| match url {
            Some(url) => url.resolve(place),
            None => Ok(otherwise.to_owned()),
        };
        let source_seen = seen(&manifest.source_from_target, "source_from_target", &source_url)?;
        let target_seen = seen(&moving.target_from_source, "target_from_source", &target_url)?;
        let source = Side::open(Place::Source, source_url, source_seen).await?;
        let target = Side::open(Place::Target, target_url, target_seen).await?;
        require!(
            source.identity != target.identity,
            "source and target are the same database ({}): the target is another one, in this cluster or another",
            crate::database::place(&source.url)
        );
        Ok(Self { owner: owner.to_owned(), manifest, source, target, state: None, lock: None })
    }

    /// The same as [`Move::open`] where the manifest may list other tables by now: what is taken back is what was begun.
    ///
    /// # Errors
    /// As there.
    pub async fn open_to_abort(manifest: &Path, owner: &str) -> Result<Self> {
        let mut opened = Self::connect(manifest, owner).await?;
        opened.lock = Some(lock(&opened.source).await?);
        opened.read_journal().await?;
        Ok(opened)
    }

    async fn read_state(&mut self) -> Result<()> {
        self.read_journal().await?;
        if let Some(state) = &self.state {
            let listed = self.moving().tables.iter().all(|table| state.begun.tables.contains(table));
            require!(
                listed && self.moving().tables.len() == state.begun.tables.len(),
                "the manifest lists other tables for {} than when its move began: put it back, or `splitctl abort {}`",
                self.owner,
                self.owner
            );
        }
        Ok(())
    }

    async fn read_journal(&mut self) -> Result<()> {
        self.state = journal::read(&mut self.source.connection, Some(&mut self.target.connection), &self.owner).await?;
        if let Some(state) = &self.state {
            require!(
                state.begun.target == self.target.identity,
                "the move of {0} began with another target database than the manifest names now; if that one is gone for good, `splitctl abort {0} --without-target`",
                self.owner
            );
        }
        Ok(())
    }

    /// What the manifest says of the owner.
    pub fn moving(&self) -> &Owner {
        &self.manifest.owners[&self.owner]
    }

    /// The state of a move that has begun.
    fn state(&self) -> Result<&State> {
        match &self.state {
            Some(state) => Ok(state),
            None => {
                Err(crate::exit::Refused(format!("no move of {0} is open: begin with `splitctl plan {0}`", self.owner))
                    .into())
            }
        }
    }

    /// The side where the tables live, and the other one.
    fn sides(&mut self, lives: Place) -> (&mut Side, &mut Side) {
        match lives {
            Place::Source => (&mut self.source, &mut self.target),
            Place::Target => (&mut self.target, &mut self.source),
        }
    }
}

/// A session that holds the lock.
async fn lock(source: &Side) -> Result<PgConnection> {
    let mut lock = connect(&source.url).await?;
    take_lock(&mut lock).await?;
    Ok(lock)
}

async fn take_lock(connection: &mut PgConnection) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let taken = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended('splitctl', 0))");
        if taken.fetch_one(&mut *connection).await? {
            return Ok(());
        }
        if Instant::now() > deadline {
            let holder = sqlx::query_scalar::<_, String>(
                "select format('process %s of the server, from %s, since %s', a.pid, coalesce(a.client_addr::text, 'a socket'), a.backend_start::timestamp(0))
                 from pg_locks l
                 join pg_stat_activity a on a.pid = l.pid
                 join pg_database d on d.oid = l.database and d.datname = current_database()
                 where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                   and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('splitctl', 0)",
            );
            let holder = holder.fetch_optional(connection).await?.unwrap_or_else(|| "nobody knows whom".to_owned());
            return Err(crate::exit::Refused(format!(
                "another splitctl is at work on this database ({holder}): wait for it"
            ))
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A second session on a side, beside one that holds locks.
async fn beside(side: &Side) -> Result<PgConnection> {
    connect(&side.url).await
}
