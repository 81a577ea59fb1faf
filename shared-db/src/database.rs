//! A service's database, and the move of its tables to another server and back.

mod following;
pub(crate) mod leaving;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::pool::Pool;
use crate::probe::Probe;
use crate::settings::Settings;
use crate::sightings::Sightings;
use crate::standbys::{self, End, Standbys};
use crate::statements::Statements;
use crate::switches::{Side, Switch};
use crate::url::{DatabaseUrl, InvalidUrl};
use crate::waits::Waits;
use crate::writes::Writes;

/// How long a process trusts the newest switch that it knows before it asks again.
///
/// splitctl waits longer than this between two switches. So a process that slept through both of them asks again, before it
/// can use a side that was left and will open again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A service's database, or two of them if its tables may move: see [`Database::moving`].
#[derive(Clone)]
pub struct Database {
    source: Pool,
    next: Option<Arc<Next>>,
    standbys: Option<Arc<Standbys>>,
    writes: Arc<Writes>,
    probe: Probe,
    acquire_timeout: Duration,
    answer_timeout: Option<Duration>,
    check_timeout: Duration,
}

/// The database to which the tables may move.
struct Next {
    owner: &'static str,
    target: Pool,
    /// The newest switch that this process knows; `None` until it has asked.
    switch: watch::Sender<Option<Switch>>,
    begun: Instant,
    /// Whether the newest question on each side found the table of the switches.
    has_switches: [AtomicBool; 2],
    /// Milliseconds from `begun` to the newest question about the switch.
    asked: AtomicU64,
    /// When a switch was last seen under way.
    sightings: Sightings,
    /// What the other side's connections have prepared.
    statements: Statements,
    /// How long requests waited for the newest switch.
    waits: Waits,
    /// How many keep the side warm that is not in use.
    keepers: AtomicUsize,
}

impl Next {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note_asked(&self, at: u64) {
        self.asked.fetch_max(at, Ordering::Relaxed);
    }

    fn is_recent(&self) -> bool {
        u128::from(self.milliseconds().saturating_sub(self.asked.load(Ordering::Relaxed))) < TRUSTED_FOR.as_millis()
    }
}

/// Says what the metrics of this crate mean.
pub fn describe_metrics() {
    metrics::describe_gauge!("db_pool_connections", metrics::Unit::Count, "Pooled connections, by state.");
    metrics::describe_gauge!("db_pool_connections_max", metrics::Unit::Count, "The most pooled connections.");
    metrics::describe_gauge!("db_pool_waiting", metrics::Unit::Count, "Requests that wait for a connection.");
    let followed = "The switches that this process has followed.";
    metrics::describe_gauge!("db_switch_generation", metrics::Unit::Count, followed);
    metrics::describe_gauge!("db_on_target", metrics::Unit::Count, "1 while the tables are on the target.");
    let warm = "Connections to the side not in use that have this process's statements prepared.";
    metrics::describe_gauge!("db_warm_connections", metrics::Unit::Count, warm);
    let waited = "The longest time of a request that was under way at the newest switch.";
    metrics::describe_gauge!("db_switch_wait_seconds", metrics::Unit::Seconds, waited);
    crate::queue::describe_metrics();
    standbys::describe_metrics();
}

impl Database {
    /// The database at `url`. It is not opened before it is needed, so it may be away.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn new(url: impl Into<DatabaseUrl>, settings: &Settings) -> Result<Self, InvalidUrl> {
        Ok(Self {
            source: Pool::new(url.into(), settings)?,
            next: None,
            standbys: None,
            writes: Arc::new(Writes::new(settings)),
            probe: Probe::default(),
            acquire_timeout: settings.acquire_timeout,
            answer_timeout: settings.answer_timeout(),
            check_timeout: settings.check_timeout,
        })
    }

    /// The same database, where the tables of `owner` may move to the database at `url` and back.
    ///
    /// The process asks where they are before its first statement, and again if it asked more than a second ago. Between two
    /// questions, a refused statement shows that they have moved.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn moving(self, owner: &'static str, url: impl Into<DatabaseUrl>, settings: &Settings) -> Result<Self, InvalidUrl> {
        let next = Next {
            owner,
            target: Pool::new(url.into(), settings)?,
            switch: watch::Sender::new(None),
            begun: Instant::now(),
            has_switches: Default::default(),
            asked: AtomicU64::new(0),
            sightings: Sightings::default(),
            statements: Statements::default(),
            waits: Waits::new(),
            keepers: AtomicUsize::new(0),
        };
        Ok(Self { next: Some(Arc::new(next)), ..self })
    }

    /// The same database, with standbys at the hosts of `url` for reads that may be `max_lag` old. `end` asks a server for
    /// the end of the service's log. [`watch_standbys`](crate::watch_standbys) must run: a host that it has not checked is
    /// not read.
    ///
    /// # Errors
    /// If `url` is not a Postgres URL.
    pub fn reading(
        self,
        url: impl Into<DatabaseUrl>,
        max_lag: Duration,
        end: End,
        settings: &Settings,
    ) -> Result<Self, InvalidUrl> {
        let standbys = Standbys::new(&url.into(), max_lag, end, settings)?;
        Ok(Self { standbys: Some(Arc::new(standbys)), ..self })
    }

    /// The newest switch that this process has followed. `None` if it has not asked yet, or if the tables cannot move.
    pub fn known_switch(&self) -> Option<Switch> {
        *self.next.as_ref()?.switch.borrow()
    }

    /// Sets the gauges of the pool in use, and of the known switch.
    pub fn record_gauges(&self) {
        let known = self.known_switch();
        self.pool(known.unwrap_or(Switch::NONE).side).record_gauges();
        if let Some(standbys) = &self.standbys {
            standbys.record_gauges(self.switch_of_reads());
        }
        if let Some(switch) = known {
            metrics::gauge!("db_switch_generation").set(switch.generation as f64);
            metrics::gauge!("db_on_target").set(f64::from(u8::from(switch.side == Side::Target)));
        }
        if let Some(next) = &self.next {
            metrics::gauge!("db_warm_connections").set(next.statements.warm() as f64);
            metrics::gauge!("db_switch_wait_seconds").set(next.waits.seen().longest.as_secs_f64());
        }
    }

    /// The shares of the pool for writes.
    pub(crate) fn writes(&self) -> &Arc<Writes> {
        &self.writes
    }

    /// The connection for checks of health.
    pub(crate) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The longest time for a check of health.
    pub(crate) fn check_timeout(&self) -> Duration {
        self.check_timeout
    }

    /// When the wait for a connection ends that begins now.
    pub(crate) fn acquire_limit(&self, begun: Instant) -> Instant {
        begun + self.acquire_timeout
    }

    /// When a [`run!`](crate::run!) ends that begins now.
    pub(crate) fn answer_limit(&self, begun: Instant) -> Option<Instant> {
        self.answer_timeout.map(|limit| begun + limit)
    }

    /// When a switch was last seen under way. `None` if the tables cannot move.
    pub(crate) fn sightings(&self) -> Option<&Sightings> {
        self.next.as_ref().map(|next| &next.sightings)
    }

    /// The standbys.
    pub(crate) fn standbys(&self) -> Option<&Arc<Standbys>> {
        self.standbys.as_ref()
    }

    /// The switch under which a standby can be read. `None` if this process does not know where the tables are.
    pub(crate) fn switch_of_reads(&self) -> Option<Switch> {
        if self.may_move() { self.known_switch() } else { Some(Switch::NONE) }
    }

    /// What this process knows of its statements. `None` if the tables cannot move.
    pub(crate) fn statements(&self) -> Option<&Statements> {
        self.next.as_ref().map(|next| &next.statements)
    }

    /// Notes the end of a request that began at `begun`.
    pub(crate) fn note_end(&self, begun: Instant) {
        if let Some(next) = &self.next {
            next.waits.note(begun);
        }
    }

    /// What splitctl may know of the newest switch, and the side where it listens: that this process has followed it, and
    /// with `is_complete` also how long requests waited.
    pub(crate) fn wait_report(&self, is_complete: bool) -> Option<(Side, String)> {
        let (next, switch) = (self.next.as_ref()?, self.known_switch()?);
        Some((switch.side, next.waits.report(next.owner, switch.generation, is_complete)))
    }

    /// Whether the tables may move.
    pub(crate) fn may_move(&self) -> bool {
        self.next.is_some()
    }

    /// The pool of one side.
    pub(crate) fn pool(&self, side: Side) -> &Pool {
        match (side, &self.next) {
            (Side::Target, Some(next)) => &next.target,
            _ => &self.source,
        }
    }
}
