//! The load: people register, change their names, order and pay, at a steady pace. A latency counts from the moment at which
//! the request was due.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::http::{Answer, Client};
use serde_json::json;
use tokio::task::JoinHandle;

/// People who act at the same time.
const WORKERS: usize = 16;
/// How many faults the report shows.
const SHOWN: usize = 5;

/// The last acknowledged state of a user or an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub version: i64,
    /// The name of a user, the status of an order.
    pub state: String,
}

/// An answered request.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The time from the start until it was due.
    pub at: Duration,
    /// From that moment to the answer.
    pub latency: Duration,
    /// Whether the request was a write.
    pub write: bool,
}

/// All that the load has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Users by id.
    pub users: HashMap<String, Known>,
    /// Orders by id.
    pub orders: HashMap<String, Known>,
    /// Every answered request since the pace was set.
    pub samples: Vec<Sample>,
    pub failed: u64,
    /// The messages of the first failures.
    pub faults: Vec<String>,
}

impl Seen {
    fn merge(&mut self, other: Self) {
        self.users.extend(other.users);
        self.orders.extend(other.orders);
        self.samples.extend(other.samples);
        self.failed += other.failed;
        self.faults.extend(other.faults);
        self.faults.truncate(SHOWN);
    }
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    over: AtomicBool,
    /// Whether requests are sent at all.
    running: AtomicBool,
    /// Nanoseconds between a worker's requests; 0: no pause.
    interval: AtomicU64,
    orders: AtomicUsize,
    requests: AtomicUsize,
    fault: Mutex<Option<String>>,
}

/// Workers that send requests until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<Seen>>>,
}

impl Load {
    /// Starts the workers, which wait for `fill` or `pace`.
    pub fn start(users: &Client, orders: &Client) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            over: AtomicBool::new(false),
            running: AtomicBool::new(false),
            interval: AtomicU64::new(0),
            orders: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            fault: Mutex::new(None),
        });
        let workers = (0..WORKERS).map(|number| {
            let worker = Worker {
                number,
                users: users.clone(),
                orders: orders.clone(),
                shared: shared.clone(),
                seen: Seen::default(),
            };
            tokio::spawn(worker.run())
        });
        Self { workers: workers.collect(), shared }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Runs without pauses until there are `orders` orders, then stops. Returns the requests per second.
    pub async fn fill(&self, orders: usize) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.shared.requests.load(Ordering::Relaxed));
        self.shared.interval.store(0, Ordering::Relaxed);
        self.shared.running.store(true, Ordering::Relaxed);
        while self.shared.orders.load(Ordering::Relaxed) < orders {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let requests = self.shared.requests.load(Ordering::Relaxed) - before;
        let rate = requests as f64 / begun.elapsed().as_secs_f64();
        self.shared.running.store(false, Ordering::Relaxed);
        // The caller may stop the services next, so requests in flight get time to end.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(rate)
    }

    /// Continues at this rate, in requests per second.
    pub fn pace(&self, rate: f64) {
        let interval = Duration::from_secs_f64(WORKERS as f64 / rate.max(1.0));
        self.shared.interval.store(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.shared.running.store(true, Ordering::Relaxed);
    }

    /// Fails if a worker has given up.
    pub fn check(&self) -> Result<()> {
        match &*self.shared.fault.lock().expect("no thread has panicked") {
            Some(fault) => bail!("the load has given up: {fault}"),
            None => Ok(()),
        }
    }

    /// Stops the workers, and returns all that they have seen.
    pub async fn stop(self) -> Result<Seen> {
        self.shared.over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for worker in self.workers {
            all.merge(worker.await??);
        }
        all.samples.sort_by_key(|sample| sample.at);
        Ok(all)
    }
}

struct Worker {
    number: usize,
    users: Client,
    orders: Client,
    shared: Arc<Shared>,
    seen: Seen,
}

/// A person, and an order to pay.
struct Person {
    user: String,
    order: Option<String>,
}

impl Worker {
    async fn run(mut self) -> Result<Seen> {
        let (mut person, mut turn, mut due) = (None, 0_usize, Instant::now());
        while !self.shared.over.load(Ordering::Relaxed) {
            if !self.shared.running.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                due = Instant::now();
                continue;
            }
            let interval = Duration::from_nanos(self.shared.interval.load(Ordering::Relaxed));
            if interval.is_zero() {
                due = Instant::now();
            } else {
                tokio::time::sleep_until(due.into()).await;
            }
            let outcome = self.turn(&mut person, turn).await;
            match outcome {
                Ok(write) => {
                    self.shared.requests.fetch_add(1, Ordering::Relaxed);
                    if !interval.is_zero() {
                        let at = due.saturating_duration_since(self.shared.begun);
                        self.seen.samples.push(Sample { at, latency: due.elapsed(), write });
                    }
                }
                Err(error) => {
                    self.seen.failed += 1;
                    if self.seen.faults.len() < SHOWN {
                        self.seen
                            .faults
                            .push(format!("after {:.2} s: {error:#}", self.shared.begun.elapsed().as_secs_f64()));
                    }
                    // The request may have been committed, so the next one uses a new person.
                    person = None;
                    if self.seen.failed > 200 {
                        let fault = self.seen.faults.first().cloned().unwrap_or_default();
                        *self.shared.fault.lock().expect("no thread has panicked") = Some(fault);
                        return Ok(self.seen);
                    }
                }
            }
            turn += 1;
            due += interval;
        }
        Ok(self.seen)
    }

    /// Sends the person's next request, and returns whether it was a write.
    async fn turn(&mut self, person: &mut Option<Person>, turn: usize) -> Result<bool> {
        let Some(known) = person else {
            *person = Some(Person { user: self.register(turn).await?, order: None });
            return Ok(true);
        };
        let user = known.user.clone();
        match (turn % 10, known.order.clone()) {
            (0, _) => {
                *person = None;
                let name = format!("Person {turn}");
                let changed =
                    answered(self.users.patch(format!("/users/{user}")).json(&json!({ "name": name })).send().await?, 200)?;
                self.note_user(&changed)?;
                Ok(true)
            }
            (1 | 6, _) => {
                answered(self.users.get(format!("/users/{user}")).send().await?, 200)?;
                Ok(false)
            }
            (2 | 4 | 7, Some(order)) => {
                let read = answered(self.orders.get(format!("/orders/{order}")).send().await?, 200)?;
                let version = read.json()["version"].as_i64();
                let expected = self.seen.orders.get(&order).map(|known| known.version);
                anyhow::ensure!(
                    version == expected,
                    "order {order} has version {version:?} instead of the acknowledged {expected:?}"
                );
                Ok(false)
            }
            (5, Some(order)) => {
                let paid = answered(self.orders.post(format!("/orders/{order}/pay")).send().await?, 200)?;
                self.note_order(&paid)?;
                known.order = None;
                Ok(true)
            }
            _ => {
                let order = json!({ "user_id": user, "currency": "EUR",
                    "items": [
                        { "sku": "tea", "quantity": 1 + turn % 9, "unit_price_minor": 350 },
                        { "sku": "cup", "quantity": 1, "unit_price_minor": 1200 },
                    ] });
                let placed = answered(self.orders.post("/orders").json(&order).send().await?, 201)?;
                known.order = Some(self.note_order(&placed)?);
                self.shared.orders.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
        }
    }

    async fn register(&mut self, turn: usize) -> Result<String> {
        let email = format!("person.{}.{turn}.{}@example.org", self.number, self.shared.begun.elapsed().as_nanos());
        let person = json!({ "email": email, "name": "Person" });
        let registered = answered(self.users.post("/users").json(&person).send().await?, 201)?;
        self.note_user(&registered)
    }

    fn note_user(&mut self, answer: &Answer) -> Result<String> {
        let (id, known) = read(answer, "name")?;
        self.seen.users.insert(id.clone(), known);
        Ok(id)
    }

    fn note_order(&mut self, answer: &Answer) -> Result<String> {
        let (id, known) = read(answer, "status")?;
        self.seen.orders.insert(id.clone(), known);
        Ok(id)
    }
}

fn read(answer: &Answer, state: &str) -> Result<(String, Known)> {
    let body = answer.json();
    let text = |field: &str| body[field].as_str().map(str::to_owned).with_context(|| format!("{field} in {body}"));
    Ok((text("id")?, Known { version: body["version"].as_i64().context("a version")?, state: text(state)? }))
}

fn answered(answer: Answer, status: u16) -> Result<Answer> {
    if answer.status == status { Ok(answer) } else { bail!("{} instead of {status}: {}", answer.status, answer.text()) }
}
