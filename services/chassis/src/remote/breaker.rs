//! A circuit breaker: after too many failures in a row, it refuses calls at once for a while. Then it admits one call as a
//! probe.
//!
//! ```text
//! closed ── FAILURES in a row ──▶ open ── pause over ──▶ half-open (one probe)
//!    ▲                              ▲                      │       │
//!    └──────────── it succeeds ─────┼──────────────────────┘       │
//!                                   └── it fails: twice the pause ─┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of failures in a row that opens it.
pub const FAILURES: u32 = 5;
/// How long it stays open at first.
pub const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long it stays open at most, after repeated failures of the probe.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls are admitted.
    Closed,
    /// Calls are refused.
    Open,
    /// One call is under way as the probe; others are refused.
    HalfOpen,
}

impl State {
    /// The state's usual name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Guards the calls to one service.
#[derive(Debug)]
pub struct Breaker {
    /// The service, for the log.
    name: &'static str,
    inner: Mutex<Inner>,
    /// Tests replace it.
    clock: fn() -> Instant,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Counts the changes of phase. The outcome of a call from an earlier phase is ignored.
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

impl Inner {
    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

/// The breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open")]
pub struct Refused;

impl Breaker {
    /// A closed breaker for the calls of the service called `name`.
    pub fn new(name: &'static str) -> Self {
        let inner = Inner { phase: Phase::Closed { failures: 0 }, generation: 0 };
        Self { name, inner: Mutex::new(inner), clock: Instant::now }
    }

    /// Admits a call, or refuses it.
    ///
    /// # Errors
    /// [`Refused`] while the breaker is open, and while another call is the probe.
    pub fn admit(&self) -> Result<Permit<'_>, Refused> {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until, pause } if (self.clock)() >= until => inner.turn(Phase::HalfOpen { pause }),
            Phase::Open { .. } | Phase::HalfOpen { .. } => return Err(Refused),
        }
        Ok(Permit { breaker: Some(self), generation: inner.generation })
    }

    /// The current state.
    pub fn state(&self) -> State {
        match self.lock().phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn record(&self, generation: u64, outcome: Outcome) {
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        let open = |pause| Phase::Open { until: (self.clock)() + pause, pause };
        match (inner.phase, outcome) {
            (Phase::Closed { .. }, Outcome::Success) => inner.phase = Phase::Closed { failures: 0 },
            (Phase::Closed { failures }, Outcome::Failure) if failures + 1 < FAILURES => {
                inner.phase = Phase::Closed { failures: failures + 1 };
            }
            (Phase::Closed { .. }, Outcome::Failure) => {
                inner.turn(open(FIRST_PAUSE));
                tracing::warn!(service = self.name, "the circuit breaker opens: {FAILURES} calls in a row have failed");
            }
            (Phase::HalfOpen { .. }, Outcome::Success) => {
                inner.turn(Phase::Closed { failures: 0 });
                tracing::info!(service = self.name, "the circuit breaker closes: a call has succeeded");
            }
            (Phase::HalfOpen { pause }, Outcome::Failure) => inner.turn(open((pause * 2).min(LONGEST_PAUSE))),
            // The next call becomes the probe.
            (Phase::HalfOpen { pause }, Outcome::GivenUp) => inner.turn(Phase::Open { until: (self.clock)(), pause }),
            (Phase::Open { .. }, _) | (Phase::Closed { .. }, Outcome::GivenUp) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Success,
    Failure,
    GivenUp,
}

/// An admitted call. A permit dropped without an outcome counts as given up, because its client has left.
#[derive(Debug)]
#[must_use = "the breaker must learn how the call went"]
pub struct Permit<'a> {
    breaker: Option<&'a Breaker>,
    generation: u64,
}

impl Permit<'_> {
    /// The service answered.
    pub fn succeeded(self) {
        self.record(Outcome::Success);
    }

    /// The service did not answer, or reported a failure.
    pub fn failed(self) {
        self.record(Outcome::Failure);
    }

    fn record(mut self, outcome: Outcome) {
        if let Some(breaker) = self.breaker.take() {
            breaker.record(self.generation, outcome);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.record(self.generation, Outcome::GivenUp);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Time that passes only by [`advance`].
    fn clock() -> Instant {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + PASSED.get()
    }

    fn advance(time: Duration) {
        PASSED.set(PASSED.get() + time);
    }

    fn breaker() -> Breaker {
        Breaker { clock, ..Breaker::new("test") }
    }

    fn fail(breaker: &Breaker, times: u32) {
        (0..times).for_each(|_| breaker.admit().expect("admitted").failed());
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let breaker = breaker();
        fail(&breaker, FAILURES - 1);
        breaker.admit().expect("admitted").succeeded();
        fail(&breaker, FAILURES - 1);
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, 1);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.admit().err(), Some(Refused));
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        advance(FIRST_PAUSE - Duration::from_millis(1));
        assert!(breaker.admit().is_err(), "before the pause is over");
        advance(Duration::from_millis(1));
        let probe = breaker.admit().expect("the probe");
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.admit().is_err(), "a second probe");
        probe.failed();

        // Twice the pause, and so on up to the longest.
        let mut pause = FIRST_PAUSE * 2;
        for _ in 0..8 {
            advance(pause - Duration::from_millis(1));
            assert!(breaker.admit().is_err(), "before {pause:?} are over");
            advance(Duration::from_millis(1));
            breaker.admit().expect("the probe").failed();
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        advance(pause);
        breaker.admit().expect("the probe").succeeded();
        assert_eq!(breaker.state(), State::Closed);
        // A success resets the pause.
        fail(&breaker, FAILURES);
        advance(FIRST_PAUSE);
        breaker.admit().expect("the probe").succeeded();
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_the_next_call_to_be_it() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        advance(FIRST_PAUSE);
        drop(breaker.admit().expect("the probe"));
        breaker.admit().expect("another probe").succeeded();
        assert_eq!(breaker.state(), State::Closed);
    }

    proptest! {
        /// However calls overlap and end: while the breaker is not closed, at most one call is under way, and after a
        /// pause a call is admitted again.
        #[test]
        fn it_never_lets_a_second_probe_through_and_never_sticks(
            steps in prop::collection::vec((0..5_u8, 0..40_u64), 1..200),
        ) {
            let breaker = breaker();
            let mut under_way = Vec::new();
            for (step, seconds) in steps {
                match step {
                    0 | 1 => {
                        let before = breaker.state();
                        if let Ok(permit) = breaker.admit() {
                            prop_assert!(before != State::HalfOpen);
                            under_way.push(permit);
                        }
                    }
                    2 => under_way.drain(..).for_each(Permit::failed),
                    3 => drop(under_way.pop()),
                    _ => advance(Duration::from_secs(seconds)),
                }
            }
            drop(under_way);
            advance(LONGEST_PAUSE);
            prop_assert!(breaker.admit().is_ok());
        }
    }
}
