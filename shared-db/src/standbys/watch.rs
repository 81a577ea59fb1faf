//! Checks of the standbys, beside the requests. They compare each standby with what the primary said before: a standby that
//! has everything the primary had at a moment is not older than that moment, by one clock, and whether the primary is idle,
//! the standby was cut off, or its replay is paused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::server::Server;
use super::standby::{Proof, Standby};
use super::{End, Fallback, Standbys, Transaction};
use crate::database::Database;
use crate::schema::SILENCE;
use crate::switches::{Side, Switch};

/// The longest pause between two checks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The shortest one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Checks the standbys of the database for ever, so that reads may come from them. Without standbys it ends at once.
pub async fn watch_standbys(database: Database) {
    let Some(standbys) = database.standbys().cloned() else { return };
    let samples = Arc::new(Samples::default());
    let mut watchers = JoinSet::new();
    for index in 0..standbys.hosts.len() {
        watchers.spawn(watch_host(standbys.clone(), index, samples.clone()));
    }
    watchers.spawn(watch_primary(database, standbys, samples));
    // They do not end. When this future is dropped, they are.
    watchers.join_all().await;
}

impl Standbys {
    /// The pause between two checks: short enough to prove that a standby is not too old.
    fn pause(&self) -> Duration {
        (self.max_lag / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}

/// What the primary said, oldest first.
#[derive(Default)]
struct Samples(Mutex<VecDeque<Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    /// Before the primary was asked.
    asked: Instant,
    /// The switch under which it is the primary.
    switch: Switch,
    server: Server,
}

impl Samples {
    /// Adds a sample, and forgets those that are older than `max_lag`.
    fn add(&self, sample: Sample, max_lag: Duration) {
        let mut samples = self.samples();
        while samples.front().is_some_and(|oldest| oldest.asked.elapsed() > max_lag) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The newest sample of whose commits `server` has all. `before` is an earlier answer of that server, and when it came.
    fn newest_of(&self, server: &Server, before: Option<(Instant, Server)>) -> Result<Sample, Fallback> {
        let samples = self.samples();
        let newest = samples.back().ok_or(Fallback::Away)?;
        if !server.is_copy_of(&newest.server) {
            return Err(Fallback::Elsewhere);
        }
        if before.is_some_and(|(at, before)| at < newest.asked && before.is_ahead_of(&newest.server)) {
            return Err(Fallback::Elsewhere);
        }
        let of_newest = samples.iter().rev().filter(|sample| sample.switch == newest.switch);
        let mut had = of_newest.filter(|sample| server.is_copy_of(&sample.server) && server.has(&sample.server));
        had.next().copied().ok_or(Fallback::Late)
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the primary again and again. While it does not answer, the newest sample gets older, and so do the standbys.
async fn watch_primary(database: Database, standbys: Arc<Standbys>, samples: Arc<Samples>) {
    let mut kept = None;
    loop {
        let asked = Instant::now();
        if let Ok(Some((switch, server))) = timeout(standbys.check_timeout, ask_primary(&database, &mut kept)).await {
            samples.add(Sample { asked, switch, server }, standbys.max_lag);
        }
        sleep(standbys.pause()).await;
    }
}

/// Asks the side where the tables are. `None` if there is no primary.
async fn ask_primary(database: &Database, kept: &mut Option<(Side, PgConnection)>) -> Option<(Switch, Server)> {
    let switch = database.switch().await.ok()?;
    let mut connection = match kept.take().filter(|(side, _)| *side == switch.side) {
        Some((_, connection)) => connection,
        None => database.pool(switch.side).unpooled(SILENCE).await.ok()?,
    };
    let is_newest = database.is_newest(switch, &mut connection).await.ok()?;
    let server = Server::ask(&mut connection).await.ok()?;
    // A connection that broke or was given up meanwhile is not kept.
    *kept = Some((switch.side, connection));
    (is_newest && !server.is_standby).then_some((switch, server))
}

async fn watch_host(standbys: Arc<Standbys>, index: usize, samples: Arc<Samples>) {
    let host = &standbys.hosts[index];
    let (mut kept, mut before) = (None, None);
    loop {
        let failures = host.failures();
        let answered = timeout(standbys.patience, ask_host(host, &mut kept, standbys.end)).await;
        let found = match answered {
            Ok(Some((server, end))) => {
                let found = samples.newest_of(&server, before);
                before = Some((Instant::now(), server));
                found.map(|Sample { asked, switch, .. }| Proof { switch, server: server.started, as_of: asked, end })
            }
            _ => Err(Fallback::Away),
        };
        host.note_check(found, failures);
        sleep(standbys.pause()).await;
    }
}

async fn ask_host(host: &Standby, kept: &mut Option<PgConnection>, end: End) -> Option<(Server, Transaction)> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => host.open().await.ok()?,
    };
    let server = Server::ask(&mut connection).await.ok()?;
    let end = end(&mut connection).await.ok()?;
    *kept = Some(connection);
    Some((server, end))
}
