//! The journal: append-only rows in the source, which say what splitctl is about to do (an intent) and has done (a record).
//! No row holds a password. The databases say everything else.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use super::crossings::crossing::Crossing;
use super::hanging::Known;
use super::migrate::planned::Begun as Migrating;
use super::objects::Names;
use super::rights::Kept;
use super::side::{Database, Identity, Side};
use super::switches::{self, Switch};
use crate::database::execute;
use crate::exit::{Refused, require};
use crate::names::Qualified;

/// How long to wait for another splitctl, which may have been killed a moment ago.
const PATIENCE: Duration = Duration::from_secs(5);

/// A step of a move, as the journal spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(type_name = "text", rename_all = "kebab-case")]
pub enum Step {
    /// The copy, which begins a move.
    Copy,
    /// A comparison that found both sides equal.
    Verify,
    /// Crossings are dropped.
    Detach,
    /// Crossings are created again.
    Attach,
    /// A migration of the definitions, on both sides.
    Migrate,
    /// The switch to the target.
    Cutover,
    /// The switch to the source.
    Rollback,
    /// A switch was tried and abandoned.
    GiveUp,
    /// The move ends in the target.
    Complete,
    /// The move ends in the source.
    Abort,
}

impl Step {
    /// The command that switches to a side.
    pub fn to(side: Side) -> Self {
        match side {
            Side::Source => Self::Rollback,
            Side::Target => Self::Cutover,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// What was decided when the move began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Begun {
    /// The owner's tables.
    pub tables: Vec<Qualified>,
    /// The database that they move to.
    pub target: Identity,
    /// Whether the move creates the tables of the target. If not, they were there before.
    pub made_tables: bool,
    /// What else the move creates there: kinds and names of types, functions and the like.
    #[serde(default)]
    pub made: Vec<(String, String)>,
    /// The shape of the tables, line by line.
    pub shape: Vec<String>,
    /// The tables without a key. Their replica identity is `full` during the move.
    #[serde(default)]
    pub keyless: Vec<Qualified>,
    /// Those of them, and of their partitions, whose replica identity was `full` before.
    #[serde(default)]
    pub full: Vec<Qualified>,
    /// The rights on the target's tables, if these were there before.
    #[serde(default)]
    pub by_hand: Vec<String>,
    /// Statements that put back on the target what else was there before: rights on schemas, default privileges, sequences.
    #[serde(default)]
    pub undo: Vec<String>,
    /// The tables without an owner that the copy brings to the target, which had none.
    #[serde(default)]
    pub unowned: Vec<Qualified>,
}

/// The state of a move. The default is the state before one begins.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The move's number; 0 if no move is open.
    pub number: i32,
    /// The names of its objects.
    pub names: Names,
    /// What was decided when it began.
    pub begun: Begun,
    /// Whether all rows have been copied.
    pub copied: bool,
    /// The newest switch: where the tables live, and since which generation.
    pub switch: Switch,
    /// The generation for which both sides were last found equal.
    pub verified: Option<i64>,
    /// The step that was begun and is not recorded as done.
    pub pending: Option<Step>,
    /// The rights that the next switch gives.
    pub kept: Kept,
    /// Crossings that are dropped, in the order in which they were.
    pub detached: Vec<Crossing>,
    /// What hung on the tables at the end of the copy, before the last switch, or after the last migration.
    pub known: Option<Known>,
    /// The migration that was begun and is not done.
    pub migrating: Option<Migrating>,
}

impl State {
    /// Whether a move of the owner is open.
    pub fn is_open(&self) -> bool {
        self.number > 0
    }

    /// The slot and subscription from the side where the tables live to the other one.
    pub fn stream(&self) -> String {
        self.names.stream(self.switch.generation + 1)
    }

    /// The slot of the stream back, which the next switch starts.
    pub fn way_back(&self) -> String {
        self.names.stream(self.switch.generation + 2)
    }

    /// Whether the rows were found equal since the last switch.
    pub fn is_verified(&self) -> bool {
        self.verified == Some(self.switch.generation)
    }

    /// Refuses every command but the one that ends the move, once that has begun.
    ///
    /// # Errors
    /// [`Refused`], with the command that ends the move.
    pub fn check_not_ending(&self, owner_name: &str) -> Result<()> {
        if let Some(step @ (Step::Abort | Step::Complete)) = self.pending {
            require!(
                false,
                "{owner_name}: `splitctl {step}` has begun and is not done: repeat `splitctl {step} {owner_name}`"
            );
        }
        Ok(())
    }

    fn add(&mut self, Row { step, intent, detail }: Row) -> Result<()> {
        match (step, intent) {
            (Step::Copy, true) => {
                self.begun = serde_json::from_value(detail)?;
                self.kept = Kept { source: None, by_hand: self.begun.by_hand.clone() };
            }
            (Step::Cutover | Step::Rollback, true) => {
                // A release before version 2 kept no rights.
                if detail["rights"].is_object() {
                    self.kept = serde_json::from_value(detail["rights"].clone())?;
                }
                if detail["hanging"].is_object() {
                    self.known = serde_json::from_value(detail["hanging"].clone())?;
                }
            }
            (Step::Copy, false) => {
                self.copied = true;
                self.known = serde_json::from_value(detail["hanging"].clone())?;
            }
            (Step::Verify, false) => self.verified = detail["generation"].as_i64(),
            (Step::Detach, true) => self.detached = serde_json::from_value(detail)?,
            (Step::Attach, false) => self.detached = Vec::new(),
            (Step::Migrate, true) => self.migrating = Some(serde_json::from_value(detail)?),
            (Step::Migrate, false) => {
                self.migrating = None;
                self.verified = None;
                self.begun.shape = serde_json::from_value(detail["shape"].clone())?;
                self.known = serde_json::from_value(detail["hanging"].clone())?;
            }
            _ => {}
        }
        // A step stays pending until it is done itself, or given up.
        if intent {
            self.pending = Some(step);
        } else if step == Step::GiveUp || self.pending == Some(step) {
            self.pending = None;
        }
        Ok(())
    }
}

#[derive(FromRow)]
struct Row {
    step: Step,
    intent: bool,
    detail: Value,
}

/// The journal of an owner's move. Its session holds the lock that lets one splitctl at a time act; the lock ends with the
/// session, however the process ends.
pub struct Journal {
    connection: PgConnection,
    owner_name: String,
    number: i32,
}

/// A move that is open in a database.
#[derive(FromRow)]
pub struct OpenMove {
    number: i32,
    /// Its owner.
    pub owner: String,
}

impl Journal {
    /// Opens a session on the source.
    pub async fn open(source: &Database, owner_name: &str) -> Result<Self> {
        Ok(Self { connection: source.connect().await?, owner_name: owner_name.to_owned(), number: 0 })
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// [`Refused`] with the session that holds it.
    pub async fn lock(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_lock().await? {
            if Instant::now() > deadline {
                let holder: Option<String> = query_scalar(LOCK_HOLDER).fetch_optional(&mut self.connection).await?;
                let holder = holder.unwrap_or_else(|| "holder unknown".to_owned());
                return Err(Refused(format!("another splitctl is running on this database ({holder}): wait for it")).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Takes the lock if nobody holds it. Returns whether it has.
    pub async fn try_lock(&mut self) -> Result<bool, sqlx::Error> {
        let lock = "select pg_try_advisory_lock(hashtextextended('splitctl', 0))";
        query_scalar(lock).fetch_one(&mut self.connection).await
    }

    /// Releases the lock.
    pub async fn unlock(&mut self) -> Result<()> {
        Ok(execute(&mut self.connection, "select pg_advisory_unlock(hashtextextended('splitctl', 0))").await?)
    }

    /// Creates the table, or upgrades it.
    pub async fn install(&mut self) -> Result<()> {
        Ok(execute(&mut self.connection, JOURNAL).await?)
    }

    /// Begins a move: its first row.
    pub async fn begin(&mut self, begun: &Begun) -> Result<()> {
        let next = query_scalar("select coalesce(max(move), 0) + 1 from splitctl.journal");
        self.number = next.fetch_one(&mut self.connection).await?;
        self.intend(Step::Copy, begun).await
    }

    /// Writes that a step is about to be done.
    pub async fn intend(&mut self, step: Step, detail: impl Serialize) -> Result<()> {
        self.append(step, "intent", &serde_json::to_value(detail)?).await
    }

    /// Writes that a step is done.
    pub async fn record(&mut self, step: Step, detail: impl Serialize) -> Result<()> {
        self.append(step, "record", &serde_json::to_value(detail)?).await
    }

    async fn append(&mut self, step: Step, event: &str, detail: &Value) -> Result<()> {
        let row = query(APPEND).bind(self.number).bind(&self.owner_name).bind(step).bind(event).bind(detail);
        row.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Whether a step that begins a stream was done within this time.
    pub async fn has_begun_stream(&mut self, within: Duration) -> Result<bool, sqlx::Error> {
        let begun = query_scalar(BEGUN_STREAM).bind(self.number).bind(within.as_secs_f64());
        begun.fetch_one(&mut self.connection).await
    }

    /// The open move of any owner.
    pub async fn find_open(&mut self) -> Result<Option<OpenMove>> {
        let exists = query_scalar("select to_regclass('splitctl.journal') is not null");
        if !exists.fetch_one(&mut self.connection).await? {
            return Ok(None);
        }
        Ok(query_as(OPEN).fetch_optional(&mut self.connection).await?)
    }

    /// Reads the state of the owner's move, and both databases' switches.
    pub async fn read(&mut self, source: &Identity, target: Option<&mut Database>) -> Result<State> {
        let mut state = State::default();
        let Some(open) = self.find_open().await?.filter(|open| open.owner == self.owner_name) else { return Ok(state) };
        self.number = open.number;
        state.number = open.number;
        state.names = Names::new(&self.owner_name, open.number, source.database);
        for row in query_as(ROWS).bind(open.number).fetch_all(&mut self.connection).await? {
            state.add(row)?;
        }
        state.switch = self.find_newest_switch(target).await?.unwrap_or_default();
        Ok(state)
    }

    /// The owner's newest switch in the source and, if it is given, the target.
    pub async fn find_newest_switch(&mut self, target: Option<&mut Database>) -> Result<Option<Switch>> {
        let mut known = vec![switches::find_newest(&mut self.connection, &self.owner_name).await?];
        if let Some(target) = target {
            known.push(switches::find_newest(&mut target.connection, &self.owner_name).await?);
        }
        Ok(known.into_iter().flatten().max_by_key(|switch| switch.generation))
    }
}

const JOURNAL: &str = include_str!("journal.sql");

const APPEND: &str = r"
    insert into splitctl.journal (move, owner, step, event, detail)
    values ($1, $2, $3, $4, $5)";

const BEGUN_STREAM: &str = r"
    select exists (
        select
        from splitctl.journal
        where move = $1
          and step in ('copy', 'cutover', 'rollback')
          and event = 'record'
          and at > clock_timestamp() - make_interval(secs => $2)
    )";

const OPEN: &str = r"
    select j.move as number, min(j.owner) as owner
    from splitctl.journal j
    group by j.move
    having not bool_or(j.step in ('complete', 'abort') and j.event = 'record')";

const ROWS: &str = r"
    select step, event = 'intent' as intent, detail
    from splitctl.journal
    where move = $1
    order by id";

const LOCK_HOLDER: &str = r"
    select format(
        'process %s of the server, from %s, since %s',
        a.pid,
        coalesce(a.client_addr::text, 'a socket'),
        a.backend_start::timestamp(0)
    )
    from pg_locks l
    join pg_stat_activity a on a.pid = l.pid
    join pg_database d on d.oid = l.database and d.datname = current_database()
    where l.locktype = 'advisory'
      and l.granted
      and l.objsubid = 1
      and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('splitctl', 0)";
