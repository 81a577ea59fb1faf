//! The poolers in a switch.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use super::Options;
use super::pause::{Clock, Pause};
use super::steps::Attempt;
use crate::database::execute;
use crate::exit::require;
use crate::moving::journal::Step;
use crate::moving::pooler::guard::{self, Guard, Orders};
use crate::moving::pooler::{self, Pooler, hook};
use crate::moving::{Move, Side, crash_point};

impl Attempt<'_> {
    /// A part of step 1. What a killed run has paused goes on.
    pub(super) async fn check_poolers(&self) -> Result<()> {
        let state = &self.the_move.state;
        let lives = state.switch.lives;
        let is_ours = state.pending == Some(Step::to(lives.other()));
        pooler::check(self.poolers, lives, is_ours, self.options.after_switch.is_some()).await
    }

    /// Starts the guard, if there are poolers.
    pub(super) async fn start_guard(&mut self) -> Result<()> {
        if self.poolers.is_empty() {
            return Ok(());
        }
        let Move { owner_name, source, target, state, .. } = &mut *self.the_move;
        let (from, _) = state.switch.lives.order(source, target);
        let orders = Orders {
            poolers: self.poolers.to_vec(),
            hook: self.options.after_switch.clone(),
            from: from.side,
            url: from.url.clone(),
            owner_name: owner_name.clone(),
            generation: state.switch.generation,
            process: query_scalar("select pg_backend_pid()").fetch_one(&mut from.connection).await?,
            max_pause: self.options.max_pause,
        };
        self.guard = Some(Guard::start(orders).await?);
        crash_point("guard started");
        Ok(())
    }

    /// After the commit: clients of the poolers go on at the other side.
    pub(super) async fn turn_poolers(&mut self, mut clock: Clock, mut pause: Pause) -> Pause {
        pause.total = clock.total();
        if let Some(guard) = self.guard.take() {
            crash_point("committed, and poolers are paused");
            let to = guard.orders.from.other();
            self.turned = Some(guard.lead(to).await);
            pause.turning = clock.lap();
            pause.total = clock.total();
        }
        pause
    }
}

/// Takes locks while clients of the poolers wait.
pub(super) struct Behind<'a> {
    guard: &'a mut Guard,
    /// How long the last pause took to come about.
    pub paused: Duration,
    /// Why no further attempt helps.
    pub refused: Option<anyhow::Error>,
}

impl<'a> Behind<'a> {
    /// Before any is asked to wait.
    pub fn new(guard: &'a mut Guard) -> Self {
        Self { guard, paused: Duration::ZERO, refused: None }
    }

    /// How long the steps up to the commit may take.
    pub fn limit(max_pause: Duration) -> Duration {
        guard::limits(max_pause)[1]
    }

    /// Pauses the poolers, and runs the statement that `lock` makes for the time that is left. If that fails, clients go on.
    /// `beside` is a second session on that side.
    pub async fn lock(
        &mut self,
        connection: &mut PgConnection,
        beside: &mut PgConnection,
        limit: Duration,
        lock: impl Fn(Duration) -> String,
    ) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        if let Err(error) = self.guard.pause(beside).await {
            self.refused = Some(error);
            return Err(sqlx::Error::WorkerCrashed);
        }
        crash_point("poolers paused");
        self.paused = begun.elapsed();
        let locked = execute(connection, lock(limit.saturating_sub(self.paused))).await;
        if locked.is_err() {
            match self.guard.turn(self.guard.orders.from).await {
                Ok(failures) => pooler::report(&failures),
                Err(error) => self.refused = Some(error),
            }
        }
        locked
    }
}

/// The poolers after a switch, and what did not work with them. `None` if this run has not turned them.
pub(super) struct Turning<'a> {
    pub poolers: &'a [Pooler],
    pub turned: Option<Vec<String>>,
}

impl Turning<'_> {
    /// Leads clients to the side where the tables live, if this run has not.
    pub async fn lead(self, options: &Options, lives: Side, is_pending: bool) -> Result<()> {
        let hook = options.after_switch.as_deref().filter(|_| is_pending);
        if self.poolers.is_empty() {
            return match hook {
                Some(hook) => hook::run(hook, lives, None).await,
                None => Ok(()),
            };
        }
        let failures = match self.turned {
            Some(failures) => failures,
            None => pooler::turn(self.poolers, lives, hook.map(|hook| (hook, options.max_pause))).await,
        };
        require!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    }
}
