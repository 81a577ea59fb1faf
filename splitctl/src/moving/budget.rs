//! The budget for the WAL that a stream's slot makes its server keep. Before the cutover, a stream that passes it is given
//! up, and its slot with it: a server whose disk is full serves nobody, and the copy can be made again. After the cutover
//! the slot is the way back, which nothing brings back, so a person decides.

use std::time::Duration;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use super::side::Side;
use super::{Move, stream};
use crate::exit::Refused;
use crate::output::note;
use crate::sizes::{self, show};

/// How often a copy looks at its slot.
const LOOK: Duration = Duration::from_millis(500);

/// The flag of the commands that look at a slot.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Budget {
    /// How much WAL the stream's slot may hold back
    #[arg(long, default_value = "10GB", value_parser = sizes::parse)]
    pub max_wal: u64,
}

/// The budget of a command without the flag.
pub const DEFAULT: Budget = Budget { max_wal: 10_000_000_000 };

/// What a slot holds back.
#[derive(Debug, Clone, Default, FromRow)]
pub struct Held {
    /// The bytes of WAL.
    pub bytes: i64,
    /// How many more bytes the server lets it hold, if the server limits that (`max_slot_wal_keep_size`).
    pub safe: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`, as Postgres calls it.
    pub status: String,
    /// Up to where the other side has confirmed what it got.
    pub position: Option<String>,
    /// The bytes of WAL from there on.
    pub behind: i64,
}

impl Held {
    /// The bytes of WAL that the slot may hold, by the budget and by the server.
    pub fn limit(&self, max_wal: u64) -> i64 {
        let by_server = self.safe.map_or(i64::MAX, |safe| self.bytes.saturating_add(safe));
        i64::try_from(max_wal).unwrap_or(i64::MAX).min(by_server)
    }

    /// Whether it holds all that it may, or more.
    pub fn is_over(&self, max_wal: u64) -> bool {
        self.bytes >= self.limit(max_wal) || self.status == "lost"
    }

    /// What to say of a slot that has used half of what it may hold, or more.
    pub fn warning(&self, name: &str, max_wal: u64) -> Option<String> {
        let limit = self.limit(max_wal);
        if self.status == "lost" {
            return Some(format!("{name}: the slot has lost its WAL, because the server keeps no more for it"));
        }
        let held = show(self.bytes);
        let is_near = self.bytes >= limit / 2 || self.status == "unreserved";
        is_near.then(|| format!("{name}: the slot holds back {held} of WAL, of at most {}", show(limit)))
    }
}

/// Reads what a slot holds back. Returns `None` if there is no such slot.
pub async fn read(from: &mut PgConnection, name: &str) -> Result<Option<Held>, sqlx::Error> {
    query_as(HELD).bind(name).fetch_optional(from).await
}

/// Runs work that needs the stream. If the stream's slot comes to hold back more WAL than this, and the tables live in the
/// source, the work ends, and so do slot and stream.
///
/// # Errors
/// [`Refused`] if the slot was given up; otherwise those of the work.
pub async fn within<T>(the_move: &mut Move, max_wal: u64, work: impl AsyncFnOnce(&mut Move) -> Result<T>) -> Result<T> {
    let Move { owner_name, source, target, state, .. } = &mut *the_move;
    let (name, lives) = (state.stream(), state.switch.lives);
    let watcher = lives.order(source, target).0.connect().await?;
    let mut watch = Watch { from: watcher, name, lives, owner_name: owner_name.clone(), max_wal, has_warned: false };
    let mut sessions = Vec::new();
    for database in [source, target] {
        sessions.push(query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&mut database.connection).await?);
    }
    let held = tokio::select! {
        done = Box::pin(work(the_move)) => return done,
        held = watch.until_limit() => held?,
    };
    // The work has ended in the middle of statements, so its sessions are no use, and what they run has to end.
    for (database, process) in [&mut the_move.source, &mut the_move.target].into_iter().zip(sessions) {
        let mut session = database.connect().await?;
        query("select pg_terminate_backend($1, 5000)").bind(process).execute(&mut session).await?;
        database.connection = session;
    }
    Err(give_up(the_move, &held, max_wal).await?.into())
}

/// Ends a stream out of the source and drops its slot. Returns what that means.
pub async fn give_up(
    Move { owner_name, source, target, state, .. }: &mut Move,
    held: &Held,
    max_wal: u64,
) -> Result<Refused> {
    let name = state.stream();
    stream::end(source, target, &name).await?;
    let what_next = match state.copied {
        false => format!(
            "The copy was given up and the slot dropped, so the server can remove that WAL. Run `splitctl copy \
             {owner_name}` when less is written, with more --jobs, or with a higher --max-wal: it begins again. `splitctl \
             abort {owner_name}` ends the move"
        ),
        true => format!(
            "The stream was given up and the slot dropped, so the server can remove that WAL. The target no longer follows: \
             run `splitctl abort {owner_name}`, and copy again when less is written, or with a higher --max-wal"
        ),
    };
    let (held, limit) = (show(held.bytes), show(held.limit(max_wal)));
    Ok(Refused(format!("{name}: the slot held back {held} of WAL, and {limit} is the limit. {what_next}")))
}

/// What to do about a slot at its limit that is not given up.
pub fn way_out(lives: Side, owner_name: &str) -> String {
    match lives {
        Side::Source => format!("`splitctl abort {owner_name}` ends the move; then the copy can begin again"),
        Side::Target => format!(
            "No command brings a lost way back: `splitctl complete {owner_name} --give-up-way-back` ends the move without it"
        ),
    }
}

/// Watches a slot.
struct Watch {
    from: PgConnection,
    name: String,
    lives: Side,
    owner_name: String,
    max_wal: u64,
    has_warned: bool,
}

impl Watch {
    /// Returns when the slot has reached its limit and is to be given up. Warns at the half, once.
    async fn until_limit(&mut self) -> Result<Held> {
        loop {
            if let Some(held) = read(&mut self.from, &self.name).await? {
                let is_over = held.is_over(self.max_wal);
                if is_over && self.lives == Side::Source {
                    return Ok(held);
                }
                self.warn(&held);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn warn(&mut self, held: &Held) {
        if let Some(warning) = held.warning(&self.name, self.max_wal).filter(|_| !self.has_warned) {
            self.has_warned = true;
            let then = match self.lives {
                Side::Source => "At the limit, the stream is given up, and the copy has to begin again".to_owned(),
                Side::Target => format!("It is kept at the limit, too. {}", way_out(self.lives, &self.owner_name)),
            };
            note(format_args!("warning: {warning}. {then}"));
        }
    }
}

const HELD: &str = r"
    select
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8 as bytes,
        safe_wal_size as safe,
        coalesce(wal_status, '') as status,
        confirmed_flush_lsn::text as position,
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::int8 as behind
    from pg_replication_slots
    where slot_name = $1
      and database = current_database()";
