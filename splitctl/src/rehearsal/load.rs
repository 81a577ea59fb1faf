//! The load: while a switch is made, sessions of the application's role work with real rows, and follow the switch.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection as _, FromRow, PgConnection, query, query_as, query_scalar};
use tokio::task::JoinHandle;

use super::scratch::Scratch;
use crate::database::{execute, sqlstate};
use crate::moving::{Move, Side};
use crate::names::quote_ident;
use crate::proof;
use crate::proof::writes::{self, Change};

/// How many sessions work at a time.
const SESSIONS: usize = 2;
/// How long a session rests after it has worked on each of its tables.
const REST: Duration = Duration::from_millis(5);
/// How long both sides may refuse a statement.
const PATIENCE: Duration = Duration::from_secs(5);
/// Every so many rounds the new row stays, so that it moves, too.
const KEPT: u64 = 10;

/// How the sessions reach the stand-ins, and who they are there.
#[derive(Debug, Clone)]
pub struct Access {
    /// The visitor's URLs, and the application's role: of the source, and of the target.
    sides: [(String, String); 2],
}

/// What the load did and met.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Tally {
    /// The tables that it worked on.
    pub tables: usize,
    /// Rounds of work that were done: an insert, an update and a delete each.
    pub done: u64,
    /// Those of them on the side that the switch opened.
    pub followed: u64,
    /// Statements that the old side refused, and that were then run on the new one.
    pub refused: u64,
    /// Statements that failed.
    pub failed: u64,
    /// The longest time until a round was done, in milliseconds.
    pub longest_ms: f64,
    /// The first failure.
    pub failure: Option<String>,
}

/// The sessions at work.
pub struct Load {
    sessions: Vec<JoinHandle<Tally>>,
    ends: Arc<AtomicBool>,
    tables: usize,
}

/// One session.
struct Worker {
    access: Access,
    changes: Vec<Change>,
    ends: Arc<AtomicBool>,
    /// The side that it uses.
    side: Side,
    /// The side that the switch opens.
    opens: Side,
    connections: [Option<PgConnection>; 2],
    tally: Tally,
}

impl Load {
    /// Begins to work where the tables live. Returns the tables that it leaves out, and why.
    ///
    /// # Errors
    /// If a session cannot log in, or the rows cannot be read.
    pub async fn start(the_move: &mut Move, access: &Access, reach_outside: bool) -> Result<(Self, Vec<String>)> {
        let lives = the_move.lives();
        let outside = if reach_outside { Vec::new() } else { proof::reaching_outside(the_move).await? };
        let (changes, empty) = writes::read(the_move, lives).await?;
        let mut left_out: Vec<String> = empty.iter().map(|table| format!("{table}: there is no row to copy")).collect();
        let mut connection = access.connect(lives).await?;
        let mut shares: Vec<Vec<Change>> = vec![Vec::new(); SESSIONS];
        let mut tables = 0;
        for change in changes {
            if outside.contains(change.table()) {
                left_out.push(format!("{}: a trigger reaches outside of the database", change.table()));
            } else if let Err(error) = change.run(&mut connection, false).await {
                left_out.push(format!("{}: {}", change.table(), said(&error)));
            } else {
                shares[tables % SESSIONS].push(change);
                tables += 1;
            }
        }
        let ends = Arc::new(AtomicBool::new(false));
        let worker = |changes| Worker {
            access: access.clone(),
            changes,
            ends: ends.clone(),
            side: lives,
            opens: lives.other(),
            connections: [None, None],
            tally: Tally::default(),
        };
        let busy = shares.into_iter().filter(|changes| !changes.is_empty());
        let sessions = busy.map(|changes| tokio::spawn(worker(changes).work())).collect();
        Ok((Self { sessions, ends, tables }, left_out))
    }

    /// No sessions.
    pub fn none() -> Self {
        Self { sessions: Vec::new(), ends: Arc::default(), tables: 0 }
    }

    /// Ends the work. If the switch was made, each session first works on the new side.
    pub async fn end(mut self) -> Result<Tally> {
        self.ends.store(true, Ordering::Relaxed);
        let mut total = Tally { tables: self.tables, ..Tally::default() };
        for session in std::mem::take(&mut self.sessions) {
            let tally = session.await?;
            total.done += tally.done;
            total.followed += tally.followed;
            total.refused += tally.refused;
            total.failed += tally.failed;
            total.longest_ms = total.longest_ms.max(tally.longest_ms);
            total.failure = total.failure.or(tally.failure);
        }
        Ok(total)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.sessions.iter().for_each(JoinHandle::abort);
    }
}

impl Worker {
    async fn work(mut self) -> Tally {
        for round in 1.. {
            // A round that begins after the switch shows that the new side works.
            let is_last = self.ends.load(Ordering::Relaxed);
            for at in 0..self.changes.len() {
                self.run(at, round % KEPT == 0).await;
            }
            if is_last {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        self.tally
    }

    /// Does a table's work. A statement that one side refuses is run on the other one, as the contract says.
    async fn run(&mut self, at: usize, keep: bool) {
        let begun = Instant::now();
        loop {
            let error = match self.try_run(at, keep).await {
                Ok(()) => {
                    self.tally.done += 1;
                    self.tally.followed += u64::from(self.side == self.opens);
                    self.tally.longest_ms = self.tally.longest_ms.max(begun.elapsed().as_secs_f64() * 1000.0);
                    return;
                }
                Err(error) => error,
            };
            match sqlstate(&error).as_deref() {
                Some("42501") if begun.elapsed() < PATIENCE => {
                    self.tally.refused += 1;
                    self.side = self.side.other();
                }
                // Applications repeat these; and a new key, which is drawn at random, may be there already.
                Some("40001" | "40P01" | "55P03" | "23505" | "23P01") if begun.elapsed() < PATIENCE => {}
                state => {
                    if state.is_none() {
                        self.connections = [None, None];
                    }
                    self.tally.failed += 1;
                    let failure = format!("{} on the {}: {}", self.changes[at].table(), self.side, said(&error));
                    self.tally.failure.get_or_insert(failure);
                    return;
                }
            }
        }
    }

    async fn try_run(&mut self, at: usize, keep: bool) -> Result<(), sqlx::Error> {
        let connection = &mut self.connections[usize::from(self.side == Side::Target)];
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(self.access.connect(self.side).await?),
        };
        self.changes[at].run(connection, keep).await
    }
}

impl Access {
    /// The visitor's, if it may act as the application's roles. No superuser's code runs as another role.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub async fn of(scratch: &mut Scratch, [source, target]: [String; 2]) -> Result<Option<Self>> {
        let may_act = query_scalar(MAY_ACT).bind(scratch.visitor()).bind([&source, &target].map(String::as_str));
        if !may_act.fetch_one(&mut scratch.admin).await? {
            return Ok(None);
        }
        let [of_source, of_target] = [Side::Source, Side::Target].map(|side| scratch.visitor_url(side));
        Ok(Some(Self { sides: [(of_source?, source), (of_target?, target)] }))
    }

    /// Logs in as the visitor, takes the settings that a login of the application's role would have, and becomes the role.
    async fn connect(&self, side: Side) -> Result<PgConnection, sqlx::Error> {
        let (url, role) = &self.sides[usize::from(side == Side::Target)];
        let options = PgConnectOptions::from_str(url)?.application_name("splitctl rehearsal").disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        for Setting { name, value } in query_as(SETTINGS).bind(role).fetch_all(&mut connection).await? {
            // A setting that only a superuser may set is the server's own.
            let _ = query("select set_config($1, $2, false)").bind(name).bind(value).execute(&mut connection).await;
        }
        execute(&mut connection, format!("set role {}", quote_ident(role))).await?;
        Ok(connection)
    }
}

fn said(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[derive(FromRow)]
struct Setting {
    name: String,
    value: String,
}

const MAY_ACT: &str = r"
    select bool_and(not r.rolsuper and pg_has_role($1, r.oid, 'MEMBER'))
    from pg_roles r
    where r.rolname = any ($2)";

/// Those of the role in the database come last, because they win.
const SETTINGS: &str = r"
    select
        split_part(c.pair, '=', 1) as name,
        substr(c.pair, strpos(c.pair, '=') + 1) as value
    from pg_db_role_setting s
    join pg_roles r on r.oid = s.setrole and r.rolname = $1
    cross join lateral unnest(s.setconfig) c (pair)
    where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    order by s.setdatabase";
