//! One host of the standbys: its connections, and what is known of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::PgConnection;
use tokio::time::Instant;

use super::server::Server;
use super::{End, Fallback, Transaction};
use crate::answer::by;
use crate::error::DatabaseError;
use crate::pool::{Connection, Pool};
use crate::schema::SILENCE;
use crate::settings::Settings;
use crate::switches::Switch;
use crate::url::{DatabaseUrl, InvalidUrl, parse};

/// A host that may answer reads.
pub(crate) struct Standby {
    /// Its address, for metrics and logs.
    pub(super) name: String,
    pool: Pool,
    known: Mutex<Known>,
}

struct Known {
    proof: Result<Proof, Fallback>,
    /// When everything was committed that the host is known to have.
    as_of: Instant,
    /// Counts the failures of reads. A check that began before the newest one proves nothing.
    failures: u64,
}

/// What the newest check has proved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    /// The switch under which the host is a copy of the database where the tables are.
    pub(super) switch: Switch,
    /// When the server was started: a connection may lead to another one.
    pub(super) server: i64,
    /// The host has everything that was committed by then.
    pub(super) as_of: Instant,
    /// The end of the log there.
    pub(super) end: Transaction,
}

impl Standby {
    pub(super) fn new(url: &DatabaseUrl, settings: &Settings) -> Result<Self, InvalidUrl> {
        let options = parse(&url.read()?)?.options;
        let known = Known { proof: Err(Fallback::Away), as_of: Instant::now(), failures: 0 };
        Ok(Self {
            name: format!("{}:{}", options.get_host(), options.get_port()),
            pool: Pool::new(url.clone(), settings)?,
            known: Mutex::new(known),
        })
    }

    /// What is known of it, if it can be read under this switch.
    pub(super) fn proof(&self, switch: Option<Switch>, oldest: Option<Instant>) -> Result<Proof, Fallback> {
        let proof = self.known().proof?;
        if Some(proof.switch) != switch {
            return Err(Fallback::Elsewhere);
        }
        if oldest.is_some_and(|oldest| proof.as_of < oldest) {
            return Err(Fallback::Late);
        }
        Ok(proof)
    }

    /// A connection that sees the transaction `after`.
    pub(super) async fn connection(
        &self,
        proof: Proof,
        after: Option<Transaction>,
        end: End,
        limit: Instant,
    ) -> Result<Connection, Fallback> {
        // A transaction of another life of the log has a number that means nothing here.
        if after.is_some_and(|after| after.epoch != proof.end.epoch) {
            return Err(Fallback::Unknown);
        }
        let mut held = match self.pool.connection(limit).await {
            Ok(held) => held,
            Err(DatabaseError::NoConnection(_)) => return Err(Fallback::Busy),
            Err(_) => return Err(self.note_failure(Fallback::Away)),
        };
        match by(Some(limit), self.check(&mut held, proof, after, end)).await {
            Ok(Ok(())) => Ok(held),
            Ok(Err(Fallback::Behind)) => {
                drop(held.release(Ok(())));
                Err(Fallback::Behind)
            }
            Ok(Err(reason)) => {
                drop(held.close(Ok(())));
                Err(reason)
            }
            Err(error) => {
                let reason = Fallback::of(&error);
                drop(held.close::<()>(Err(error)));
                // A cancelled question says nothing against the standby either.
                Err(if reason == Fallback::Cancelled { reason } else { self.note_failure(reason) })
            }
        }
    }

    /// Checks that the connection leads to the server of the proof, and that this server has the transaction `after`. Most
    /// reads need no question: an earlier one has been answered.
    async fn check(
        &self,
        held: &mut Connection,
        proof: Proof,
        after: Option<Transaction>,
        end: End,
    ) -> Result<Result<(), Fallback>, sqlx::Error> {
        if held.server().is_none() {
            *held.server() = Some(Server::ask(held).await?.started);
        }
        if *held.server() != Some(proof.server) {
            return Ok(Err(Fallback::Elsewhere));
        }
        let Some(after) = after.filter(|after| *after > proof.end) else { return Ok(Ok(())) };
        let end = end(held).await?;
        if let Ok(known) = &mut self.known().proof
            && known.server == proof.server
        {
            known.end = end;
        }
        if after.epoch != end.epoch {
            return Ok(Err(Fallback::Unknown));
        }
        Ok(if after <= end { Ok(()) } else { Err(Fallback::Behind) })
    }

    /// Notes that a read has failed there. No further one is tried before a check has succeeded.
    pub(crate) fn note_failure(&self, reason: Fallback) -> Fallback {
        let mut known = self.known();
        known.failures += 1;
        if known.proof.is_ok() {
            tracing::warn!(host = self.name, reason = reason.as_str(), "a standby failed: reads come from elsewhere");
        }
        known.proof = Err(reason);
        drop(known);
        self.pool.close_idle();
        reason
    }

    /// How many reads have failed there.
    pub(super) fn failures(&self) -> u64 {
        self.known().failures
    }

    /// Notes the outcome of a check that began when there were so many failures.
    pub(super) fn note_check(&self, found: Result<Proof, Fallback>, failures: u64) {
        let mut known = self.known();
        if known.failures != failures {
            return;
        }
        match (&known.proof, &found) {
            (Err(_), Ok(_)) => tracing::info!(host = self.name, "reads may come from this standby"),
            (Ok(_), Err(reason)) => {
                tracing::warn!(host = self.name, reason = reason.as_str(), "a standby cannot be read now");
            }
            _ => {}
        }
        if let Ok(proof) = &found {
            known.as_of = proof.as_of;
        }
        known.proof = found;
    }

    /// Opens a connection for checks.
    pub(super) async fn open(&self) -> Result<PgConnection, DatabaseError> {
        self.pool.unpooled(SILENCE).await
    }

    /// Sets the gauges of its lag, and of whether it can be read.
    pub(super) fn record_gauges(&self, is_readable: bool) {
        let lag = self.known().as_of.elapsed();
        metrics::gauge!("db_standby_lag_seconds", "host" => self.name.clone()).set(lag);
        metrics::gauge!("db_standby_readable", "host" => self.name.clone()).set(f64::from(u8::from(is_readable)));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
