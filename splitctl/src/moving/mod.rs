//! The move of one owner's tables to a database of their own.
//!
//! Every step may be repeated: it leaves what is done already, and does the rest. So a command that runs again after a crash
//! finishes the work. Each step reads the facts from the databases. The journal keeps what no database knows.

pub mod abort;
mod applier;
mod autovacuum;
pub mod budget;
mod cleanup;
pub mod complete;
pub mod copy;
pub mod crossings;
pub mod cutover;
mod definitions;
mod facts;
pub mod fence;
mod hanging;
pub mod inventory;
mod journal;
mod marker;
pub mod migrate;
mod objects;
mod opening;
mod passing;
pub mod plan;
pub mod pooler;
pub mod progress;
mod relations;
mod rights;
mod roles;
mod schema;
mod sequences;
mod shape;
mod side;
mod slot;
mod stalled;
mod standbys;
pub mod status;
mod stream;
mod subscription;
mod switches;
mod unowned;
pub mod verify;
mod versions;
pub mod watching;

use std::path::Path;

use anyhow::{Context, Result};

use crate::database::address;
use crate::endpoint::Endpoint;
use crate::exit::require;
use crate::manifest::{Manifest, Owner, Url};
pub use fence::{Locking, patiently};
use inventory::Inventory;
use journal::{Journal, State};
pub use opening::Opening;
pub use progress::Progress;
pub(crate) use relations::key_index;
pub use relations::tables;
pub use schema::{definitions_of, pg_dump};
pub use side::{Database, Side};
pub use subscription::try_subscription;

/// Ends the process as `kill -9` does, at the point that `SPLITCTL_DIE_AT` counts to. The tests of crashes use it; a release
/// build has no such points.
pub fn crash_point(name: &str) {
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

/// Names the way out of a move whose target does not answer.
async fn explain(error: anyhow::Error, source: &Database, owner_name: &str) -> anyhow::Error {
    let open = async {
        let mut journal = Journal::open(source, owner_name).await?;
        journal.find_open().await
    };
    match open.await {
        Ok(Some(open)) if open.owner == owner_name => error.context(format!(
            "{owner_name}: its move is open, and the target does not answer. If the target is there at another address, \
             correct the manifest. If it is gone for good, run `splitctl abort {owner_name} --without-target`"
        )),
        _ => error,
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
        let mut the_move = Self::open_to_abort(manifest, owner_name).await?;
        the_move.check_tables()?;
        if the_move.state.is_open() {
            let Self { source, target, state, .. } = &mut the_move;
            let (from, to) = state.switch.lives.order(source, target);
            subscription::reconnect(from, to, &state.stream()).await?;
        }
        Ok(the_move)
    }

    /// Does the same, although the manifest may list other tables than when the move began: `abort` needs those of the
    /// begin.
    ///
    /// # Errors
    /// As [`Move::open`].
    pub async fn open_to_abort(manifest: &Path, owner_name: &str) -> Result<Self> {
        Self::open_with(Manifest::read(manifest)?, owner_name).await
    }

    /// Does the same with a manifest that is no file: a rehearsal names two databases of its own.
    ///
    /// # Errors
    /// As [`Move::open`].
    pub async fn open_with(manifest: Manifest, owner_name: &str) -> Result<Self> {
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
        let mut the_move = Self::connect(Manifest::read(manifest)?, owner_name).await?;
        the_move.read_state().await?;
        the_move.check_tables()?;
        Ok(the_move)
    }

    async fn connect(manifest: Manifest, owner_name: &str) -> Result<Self> {
        let owner = manifest.owner(owner_name)?.clone();
        let field = |name: &str| format!("owners.{owner_name}.{name}");
        let target = owner.target.as_ref();
        let target = target.with_context(|| format!("{}: the manifest names no target", field("target")))?;
        let (source_url, target_url) = (manifest.source.resolve("source")?, target.resolve(&field("target"))?);
        let or = |url: &Option<Url>, field: &str, otherwise: &str| match url {
            Some(url) => match url.resolve_for_server(field)? {
                same if same == otherwise => Endpoint::of_this_process(otherwise),
                other => Endpoint::of_a_server(&other),
            },
            None => Endpoint::of_this_process(otherwise),
        };
        let source_from_target = or(&manifest.source_from_target, "source_from_target", &source_url)?;
        let target_from_source = or(&owner.target_from_source, &field("target_from_source"), &target_url)?;
        let mut source = Database::open(Side::Source, source_url, source_from_target).await?;
        let target = Database::open(Side::Target, target_url, target_from_source).await;
        let mut target = match target {
            Ok(target) => target,
            Err(error) => return Err(explain(error, &source, owner_name).await),
        };
        require!(
            source.identity != target.identity,
            "{}: source and target are the same database: name another one as the target",
            address(&source.url)
        );
        source.standbys.extend(Url::resolve_hosts(&manifest.source_standbys, "source_standbys")?);
        target.standbys.extend(Url::resolve_hosts(&owner.target_standbys, &field("target_standbys"))?);
        versions::check(&mut source).await?;
        versions::check(&mut target).await?;
        let journal = Journal::open(&source, owner_name).await?;
        let owner_name = owner_name.to_owned();
        Ok(Self { manifest, owner_name, owner, source, target, journal, state: State::default() })
    }

    /// Whether a move of the owner is open.
    pub fn is_open(&self) -> bool {
        self.state.is_open()
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
                switches::install(&mut database.connection, database.side.role_of(&self.owner)).await?;
                if database.side == Side::Source {
                    self.journal.install().await?;
                }
            }
        }
        Ok(())
    }

    /// The inventory of the source.
    pub async fn read_inventory(&mut self) -> Result<Inventory> {
        Inventory::read(&mut self.source.connection, &self.owner).await
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
