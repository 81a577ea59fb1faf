//! The load: people register, change their names, order and pay. A request that is refused or not answered is sent again
//! until it succeeds, so every write has a known end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dev::http::{Call, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::tally::Tally;

/// People who act at the same time.
const WORKERS: usize = 8;
/// The pause of a worker after each answer.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause before a refused request is sent again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a request may be sent again and again. A fault is over sooner.
const PATIENCE: Duration = Duration::from_secs(120);

/// The acknowledged state of a user or an order after each of its versions that this load has seen.
pub type Known = HashMap<(Uuid, i64), String>;

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct History {
    /// The names of users.
    pub users: Known,
    /// The statuses of orders.
    pub orders: Known,
    /// Orders that one idempotency key has placed beyond the first.
    pub doubled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Pause,
    End,
}

/// The workers, and the tally of the present fault.
pub struct Load {
    go: watch::Sender<Go>,
    tally: Arc<Mutex<Tally>>,
    turns: Arc<[AtomicU64; WORKERS]>,
    /// Workers that wait until the load goes on.
    paused: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<Result<History>>>,
}

impl Load {
    /// Starts the workers.
    pub fn start(users: &Client, orders: &Client) -> Self {
        let (go, tally, turns) = (watch::Sender::new(Go::On), Arc::default(), Arc::<[AtomicU64; WORKERS]>::default());
        let paused = Arc::<AtomicUsize>::default();
        let workers = (0..WORKERS).map(|number| {
            let worker = Worker {
                number,
                users: users.clone(),
                orders: orders.clone(),
                go: go.subscribe(),
                paused: Arc::clone(&paused),
                tally: Arc::clone(&tally),
                history: History::default(),
            };
            tokio::spawn(worker.run(turns.clone()))
        });
        Self { workers: workers.collect(), go, tally, turns, paused }
    }

    /// What has been counted since the last call.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut lock(&self.tally))
    }

    /// Counts answers that others have got.
    pub fn count(&self, others: Tally) {
        lock(&self.tally).merge(others);
    }

    /// Lets each worker finish its turn, and wait.
    pub async fn pause(&self) {
        self.go.send_replace(Go::Pause);
        while self.paused.load(Ordering::Relaxed) < WORKERS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Goes on.
    pub fn resume(&self) {
        self.go.send_replace(Go::On);
    }

    /// Waits until each worker has finished two turns from now on: the first may have begun earlier.
    pub async fn until_all_succeed(&self) -> Result<()> {
        let before = self.progress();
        let deadline = Instant::now() + PATIENCE;
        while self.progress().iter().zip(&before).any(|(now, before)| *now < before + 2) {
            ensure!(Instant::now() < deadline, "the services do not work again");
            ensure!(!self.workers.iter().any(JoinHandle::is_finished), "a worker has given up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn progress(&self) -> Vec<u64> {
        self.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
    }

    /// Ends the load: all that was acknowledged.
    pub async fn end(self) -> Result<History> {
        self.go.send_replace(Go::End);
        let mut all = History::default();
        for worker in self.workers {
            let History { users, orders, doubled } = worker.await??;
            all.users.extend(users);
            all.orders.extend(orders);
            all.doubled += doubled;
        }
        Ok(all)
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    number: usize,
    users: Client,
    orders: Client,
    go: watch::Receiver<Go>,
    paused: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
    history: History,
}

impl Worker {
    async fn run(mut self, turns: Arc<[AtomicU64; WORKERS]>) -> Result<History> {
        for turn in 0_u64.. {
            self.paused.fetch_add(1, Ordering::Relaxed);
            let go = *self.go.wait_for(|go| *go != Go::Pause).await?;
            self.paused.fetch_sub(1, Ordering::Relaxed);
            if go == Go::End {
                break;
            }
            self.turn(turn).await?;
            turns[self.number].fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.history)
    }

    /// A new person, from the registration to a paid order.
    async fn turn(&mut self, turn: u64) -> Result<()> {
        let (users, orders) = (self.users.clone(), self.orders.clone());
        let email = format!("person.{}.{turn}.{}@example.org", self.number, Uuid::new_v4().simple());
        let person = json!({ "email": email, "name": "Person" });
        // Refused at the second try: the first has registered the address after all.
        let registered = self.until_done(|| users.post("/users").json(&person), 201, Some("email-taken")).await?;
        let user = match registered {
            Some(user) => user,
            None => {
                self.until_done(|| users.get(format!("/users?email={email}")), 200, None).await?.context("a page")?["items"]
                    [0]
                .clone()
            }
        };
        let user_id = self.note(true, &user, "name")?;
        let name = json!({ "name": format!("Person {turn}") });
        let changed = self.until_done(|| users.patch(format!("/users/{user_id}")).json(&name), 200, None).await?;
        self.note(true, &changed.context("a user")?, "name")?;
        let key = Uuid::new_v4();
        let tea = json!({ "sku": "tea", "quantity": 1 + turn % 9, "unit_price_minor": 350 });
        let order = json!({ "user_id": user_id, "currency": "EUR", "items": [tea] });
        let place = || orders.post("/orders").header("idempotency-key", key).json(&order);
        let placed = self.until_done(place, 201, None).await?.context("an order")?;
        let order_id = self.note(false, &placed, "status")?;
        if turn.is_multiple_of(5) {
            let again = self.until_done(place, 201, None).await?.context("an order")?;
            self.history.doubled += u64::from(again["id"] != placed["id"]);
        }
        let pay = || orders.post(format!("/orders/{order_id}/pay"));
        if let Some(paid) = self.until_done(pay, 200, Some("invalid-transition")).await? {
            self.note(false, &paid, "status")?;
        }
        self.until_done(|| orders.get(format!("/orders/{order_id}")), 200, None).await?;
        self.until_done(|| orders.get("/orders?limit=5"), 200, None).await?;
        self.until_done(|| users.get(format!("/users/{user_id}")), 200, None).await?;
        Ok(())
    }

    /// Sends a request until it is answered `status`: its body. `None` if a repetition was answered by the problem
    /// `already`, which says that an earlier try was done.
    async fn until_done(&mut self, call: impl Fn() -> Call, status: u16, already: Option<&str>) -> Result<Option<Value>> {
        let deadline = Instant::now() + PATIENCE;
        for attempt in 0_u32.. {
            let sent = Instant::now();
            let call = call();
            let reads = call.reads();
            let answer = call.send().await;
            let problem = already.filter(|_| attempt > 0).map(|name| format!("urn:problem-type:{name}"));
            let body = answer.as_ref().ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            let is_already =
                problem.is_some_and(|problem| body.as_ref().is_some_and(|body| body["type"] == problem.as_str()));
            let is_done = answer.as_ref().is_ok_and(|answer| answer.status == status) && body.is_some();
            lock(&self.tally).note(&answer, is_done || is_already, reads, sent.elapsed());
            if is_already {
                return Ok(None);
            }
            if is_done {
                tokio::time::sleep(PAUSE).await;
                return Ok(body);
            }
            ensure!(Instant::now() < deadline, "a request is refused for {PATIENCE:?}: {answer:?}");
            tokio::time::sleep(AGAIN).await;
        }
        Ok(None)
    }

    /// Notes an acknowledged state, and returns its id.
    fn note(&mut self, is_user: bool, entity: &Value, state: &str) -> Result<Uuid> {
        let id = entity["id"].as_str().and_then(|id| id.parse().ok()).with_context(|| format!("an id in {entity}"))?;
        let version = entity["version"].as_i64().with_context(|| format!("a version in {entity}"))?;
        let state = entity[state].as_str().with_context(|| format!("{state} in {entity}"))?.to_owned();
        let known = if is_user { &mut self.history.users } else { &mut self.history.orders };
        known.insert((id, version), state);
        Ok(id)
    }
}
