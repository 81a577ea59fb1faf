//! Watches a move that another splitctl works on: what the journal, the slot, the stream and Postgres' own views of progress
//! say of it, one look after the other.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use sqlx::{FromRow, PgConnection, query_as};

use super::budget::{self, Held};
use super::journal::Step;
use super::progress::Point;
use super::relations::{self, Table};
use super::side::Side;
use super::{Move, copy, stalled, subscription};
use crate::output::note;

/// What one look at a move sees.
#[derive(Debug, Default, Serialize)]
pub struct Look {
    /// The owner.
    pub owner: String,
    /// Whether a move is open.
    pub open: bool,
    /// The side where the tables live.
    pub lives: Option<Side>,
    /// Whether all rows have been copied.
    pub copied: bool,
    /// A step that was begun and is not done.
    pub pending: Option<Step>,
    /// How far the copy is, until it is done.
    pub progress: Option<Point>,
    /// What the sessions of splitctl do now, by side, such as `target: 2 x copy`.
    pub activities: Vec<String>,
    /// Whether the stream runs.
    pub stream_works: bool,
    /// How often the stream has failed since it was created.
    pub failures: i64,
    /// How many bytes of WAL the stream is behind.
    pub behind_bytes: Option<i64>,
    /// How many bytes of WAL its slot holds back.
    pub retained_bytes: Option<i64>,
    /// How many it may hold back, by `--max-wal` and by the server.
    pub limit_bytes: Option<i64>,
    /// A stream that has made no progress for a minute: where it stands, and why.
    pub stalled: Option<String>,
    /// What to know about the slot.
    pub warning: Option<String>,
}

/// Looks at a move again and again.
pub struct Watcher {
    the_move: Move,
    max_wal: u64,
    gives_up: bool,
    known: Vec<Table>,
    /// When the copy was first seen, with how many rows and bytes.
    first: Option<(Instant, Copied)>,
    /// Since when the stream has been at its position.
    stands: Option<(Instant, String)>,
    /// What was said of it, and when.
    said: Option<(Instant, String)>,
}

impl Watcher {
    /// Begins to watch. `gives_up` says whether it gives the slot up that passes the limit.
    pub fn new(the_move: Move, max_wal: u64, gives_up: bool) -> Self {
        Self { the_move, max_wal, gives_up, known: Vec::new(), first: None, stands: None, said: None }
    }

    /// Looks once.
    ///
    /// # Errors
    /// If a database cannot be asked.
    pub async fn look(&mut self) -> Result<Look> {
        self.the_move.read_state().await?;
        let Move { owner_name, source, target, state, .. } = &mut self.the_move;
        let mut look = Look { owner: owner_name.clone(), ..Look::default() };
        if !state.is_open() {
            (self.first, self.stands, self.said) = (None, None, None);
            return Ok(look);
        }
        (look.open, look.copied, look.pending) = (true, state.copied, state.pending);
        let (lives, name) = (state.switch.lives, state.stream());
        look.lives = Some(lives);
        let (from, to) = lives.order(source, target);
        let health = subscription::read_health(&mut to.connection, &name).await?;
        (look.stream_works, look.failures) = (health.works, health.failures);
        let held = budget::read(&mut from.connection, &name).await?;
        for database in [from, to] {
            let found: Vec<Activity> = query_as(ACTIVITIES).fetch_all(&mut database.connection).await?;
            look.activities.extend(found.into_iter().map(|Activity { text }| format!("{}: {text}", database.side)));
        }
        if let Some(held) = held {
            look.behind_bytes = Some(held.behind);
            look.retained_bytes = Some(held.bytes);
            look.limit_bytes = Some(held.limit(self.max_wal));
            look.warning = self.keep(&held, lives).await?;
            let position = held.position.filter(|_| health.exists && held.behind > 0);
            look.stalled = self.judge(position).await?;
        } else if look.copied && look.pending.is_none() {
            let way_out = budget::way_out(lives, &self.the_move.owner_name);
            look.warning =
                Some(format!("{name}: the slot is gone, and with it the changes that it had not sent. {way_out}"));
        }
        if !look.copied {
            look.progress = Some(self.measure(&health).await?);
        }
        Ok(look)
    }

    /// Keeps the budget: warns, and gives the slot up at the limit if that was asked for and the copy can be made again.
    /// Another splitctl that works on the move keeps the budget itself.
    async fn keep(&mut self, held: &Held, lives: Side) -> Result<Option<String>> {
        let Self { the_move, max_wal, gives_up, .. } = self;
        let Some(warning) = held.warning(&the_move.state.stream(), *max_wal) else { return Ok(None) };
        if !held.is_over(*max_wal) {
            return Ok(Some(warning));
        }
        if *gives_up && lives == Side::Source && the_move.journal.try_lock().await? {
            // Until then, another splitctl may have switched.
            the_move.read_state().await?;
            let is_still = the_move.is_open() && the_move.state.switch.lives == Side::Source;
            let given_up = match is_still {
                true => Some(budget::give_up(the_move, held, *max_wal).await?.0),
                false => None,
            };
            the_move.journal.unlock().await?;
            given_up.iter().for_each(note);
            return Ok(given_up);
        }
        Ok(Some(format!("{warning}. {}", budget::way_out(lives, &the_move.owner_name))))
    }

    /// Says where the stream stands if it has been there for a minute, and looks for the reason once a minute.
    async fn judge(&mut self, position: Option<String>) -> Result<Option<String>> {
        let Some(position) = position else {
            (self.stands, self.said) = (None, None);
            return Ok(None);
        };
        match &self.stands {
            Some((since, at)) if *at == position => {
                if since.elapsed() < stalled::PATIENCE {
                    return Ok(None);
                }
            }
            _ => {
                (self.stands, self.said) = (Some((Instant::now(), position)), None);
                return Ok(None);
            }
        }
        if let Some((at, said)) = &self.said
            && at.elapsed() < stalled::PATIENCE
        {
            return Ok(Some(said.clone()));
        }
        let Move { source, target, state, .. } = &mut self.the_move;
        let (from, to) = state.switch.lives.order(source, target);
        let said = stalled::explain(from, to, &state.stream(), &state.names).await?;
        self.said = Some((Instant::now(), said.clone()));
        Ok(Some(said))
    }

    /// How far the copy is, and how fast since it was first seen.
    async fn measure(&mut self, health: &subscription::Health) -> Result<Point> {
        let Move { owner, owner_name, source, target, .. } = &mut self.the_move;
        if self.known.is_empty() {
            self.known = relations::tables(&mut source.connection, &owner.tables).await?;
        }
        let now = Copied::read(&mut target.connection, &owner.tables).await?;
        let finished = match health.exists {
            // The marker is one more.
            true => usize::try_from(health.ready - 1).unwrap_or(0),
            false => copy::count_finished(&mut target.connection, owner_name).await?.unwrap_or(0),
        };
        let (since, before) = self.first.get_or_insert((Instant::now(), now));
        let point = Point {
            activity: "copying".to_owned(),
            tables: Some((finished.min(owner.tables.len()) as u64, owner.tables.len() as u64)),
            rows: now.rows.unsigned_abs(),
            expected_rows: self.known.iter().map(|table| table.estimate.unsigned_abs()).sum(),
            bytes: Some(now.bytes.unsigned_abs()),
            ..Point::default()
        };
        let more = (now.rows.saturating_sub(before.rows), now.bytes.saturating_sub(before.bytes));
        Ok(point.at_rate((more.0.max(0).unsigned_abs(), more.1.max(0).unsigned_abs()), since.elapsed().max(MOMENT)))
    }
}

/// Less time says nothing about a rate.
const MOMENT: Duration = Duration::from_millis(100);

/// What the target has of the tables.
#[derive(Debug, Clone, Copy, Default, FromRow)]
struct Copied {
    rows: i64,
    bytes: i64,
}

impl Copied {
    async fn read(target: &mut PgConnection, tables: &[crate::names::Qualified]) -> Result<Self, sqlx::Error> {
        Ok(relations::select(target, COPIED, tables).await?.pop().unwrap_or_default())
    }
}

#[derive(FromRow)]
struct Activity {
    text: String,
}

/// The rows of finished parts by the statistics, and those that are being copied.
const COPIED: &str = r"
    select
        coalesce(sum(coalesce(s.n_live_tup, 0) + coalesce(p.rows, 0)), 0)::int8 as rows,
        coalesce(sum(pg_table_size(c.oid)), 0)::int8 as bytes
    from pg_class c
    left join pg_stat_all_tables s on s.relid = c.oid
    left join lateral (
        select sum(r.tuples_processed) as rows
        from pg_stat_progress_copy r
        where r.relid = c.oid
          and r.command = 'COPY FROM'
          and r.datname = current_database()
    ) p on true
    where c.oid = any ($1)
      and c.relkind = 'r'";

/// The verbs of the statements that run: what follows may hold values of rows.
const ACTIVITIES: &str = r"
    select format('%s x %s', count(*), a.verb) as text
    from (
        select coalesce(lower(substring(query from '^\s*([A-Za-z]+(\s+[A-Za-z]+)?)')), backend_type) as verb
        from pg_stat_activity
        where datname = current_database()
          and pid <> pg_backend_pid()
          and state = 'active'
          and application_name = 'splitctl'
    ) a
    group by a.verb
    order by a.verb";
