//! The move of one owner's tables to a database of their own.
//!
//! Every step may be repeated: it leaves what is done already, and does the rest. So a command that runs again after a crash
//! finishes the work. Each step reads the facts from the databases. The journal keeps what no database knows.

pub mod abort;
mod autovacuum;
mod cleanup;
pub mod complete;
pub mod copy;
pub mod crossings;
pub mod cutover;
mod definitions;
pub mod fence;
mod inventory;
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
mod switches;
mod unowned;
pub mod verify;
mod versions;

use std::path::Path;

use anyhow::{Context, Result};

use crate::database::address;
use crate::exit::require;
use crate::manifest::{Manifest, Owner, Url};
pub use fence::{Locking, patiently};
use journal::{Journal, State};
pub use side::{Database, Side};

/// Ends the process as `kill -9` does, at the point that `SPLITCTL_DIE_AT` counts to. The tests of crashes use it; a release
/// build has no such points.
fn crash_point(name: &str) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let wanted = || std::env::var("SPLITCTL_DIE_AT").ok()?.parse::<usize>().ok();
    if cfg!(debug_assertions)
        && let Some(wanted) = wanted()
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == wanted
    {
        eprintln!("dying at point {wanted}: {name}");
        std::process::abort();
    }
}

/// A move between two connected databases.
pub struct Move {
    /// The manifest.
    pub manifest: Manifest,
    /// The owner's name in the manifest.
    pub owner_name: String,
    /// The owner's entry in the manifest.
    pub owner: Owner,
    /// The shared database.
    pub source: Database,
    /// The owner's own database.
    pub target: Database,
    /// The journal in the source.
    journal: Journal,
    /// The state of the move, read from the journal and both databases.
    state: State,
}

impl Move {
    /// Connects to both databases and takes the lock that lets one splitctl at a time act.
    ///
    /// # Errors
    /// If the manifest is wrong, a database does not answer, or another process holds the lock.
    pub async fn open(manifest: &Path, owner_name: &str) -> Result<Self> {
        let the_move = Self::open_to_abort(manifest, owner_name).await?;
        the_move.check_tables()?;
        Ok(the_move)
    }

    /// Does the same, although the manifest may list other tables than when the move began: `abort` needs those of the
    /// begin.
    ///
    /// # Errors
    /// As [`Move::open`].
    pub async fn open_to_abort(manifest: &Path, owner_name: &str) -> Result<Self> {
        let mut the_move = Self::connect(manifest, owner_name).await?;
        the_move.journal.lock().await?;
        the_move.read_state().await?;
        the_move.upgrade().await?;
        Ok(the_move)
    }

    /// Connects to both databases to read only.
    ///
    /// # Errors
    /// If the manifest is wrong, or a database does not answer.
    pub async fn look(manifest: &Path, owner_name: &str) -> Result<Self> {
        let mut the_move = Self::connect(manifest, owner_name).await?;
        the_move.read_state().await?;
        the_move.check_tables()?;
        Ok(the_move)
    }

    async fn connect(manifest: &Path, owner_name: &str) -> Result<Self> {
        let manifest = Manifest::read(manifest)?;
        let owner = manifest.owner(owner_name)?.clone();
        let field = |name: &str| format!("owners.{owner_name}.{name}");
        let target = owner.target.as_ref();
        let target = target.with_context(|| format!("{}: the manifest names no target", field("target")))?;
        let (source_url, target_url) = (manifest.source.resolve("source")?, target.resolve(&field("target"))?);
        let or = |url: &Option<Url>, field: &str, otherwise: &str| match url {
            Some(url) => url.resolve(field),
            None => Ok(otherwise.to_owned()),
        };
        let source_from_target = or(&manifest.source_from_target, "source_from_target", &source_url)?;
        let target_from_source = or(&owner.target_from_source, &field("target_from_source"), &target_url)?;
        let mut source = Database::open(Side::Source, source_url, source_from_target).await?;
        let mut target = Database::open(Side::Target, target_url, target_from_source).await?;
        require!(
            source.identity != target.identity,
            "{}: source and target are the same database: name another one as the target",
            address(&source.url)
        );
        versions::check(&mut source).await?;
        versions::check(&mut target).await?;
        let journal = Journal::open(&source, owner_name).await?;
        let owner_name = owner_name.to_owned();
        Ok(Self { manifest, owner_name, owner, source, target, journal, state: State::default() })
    }

    async fn read_state(&mut self) -> Result<()> {
        self.state = self.journal.read(&self.source.identity, Some(&mut self.target)).await?;
        require!(
            !self.state.is_open() || self.state.begun.target == self.target.identity,
            "{0}: its move began with another target database than the manifest names now. Name that database again; if it \
             is gone for good, run `splitctl abort {0} --without-target`",
            self.owner_name
        );
        Ok(())
    }

    /// Upgrades the tables of a move that an older release began.
    async fn upgrade(&mut self) -> Result<()> {
        if !self.state.is_open() {
            return Ok(());
        }
        for database in [&mut self.source, &mut self.target] {
            if versions::is_outdated(database).await? {
                switches::install(&mut database.connection, &self.owner.role).await?;
                if database.side == Side::Source {
                    self.journal.install().await?;
                }
            }
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<()> {
        let (listed, begun) = (&self.owner.tables, &self.state.begun.tables);
        require!(
            !self.state.is_open() || listed.len() == begun.len() && listed.iter().all(|table| begun.contains(table)),
            "{0}: the manifest lists other tables than when the move began. List those tables again, or run \
             `splitctl abort {0}`",
            self.owner_name
        );
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        require!(self.state.is_open(), "no move of {0} is open: begin with `splitctl plan {0}`", self.owner_name);
        Ok(())
    }
}
