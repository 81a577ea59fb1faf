//! The load: people register, change their names, order and pay, at a steady pace. A latency counts from the moment at which
//! the request was due.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dev::http::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// People who act at the same time.
const WORKERS: usize = 16;
/// How many faults the report shows.
const SHOWN: usize = 5;
/// After so many failures a worker gives up.
const MOST_FAILURES: u64 = 200;

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

/// How fast the workers send requests.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Not at all.
    Pause,
    /// As fast as they are answered.
    Unpaced,
    /// One for each worker in this time.
    Every(Duration),
    /// The workers end.
    Over,
}

/// What the workers have done so far.
#[derive(Debug, Default)]
struct Done {
    orders: AtomicUsize,
    requests: AtomicUsize,
}

/// Workers that send requests until they are stopped.
pub struct Load {
    begun: Instant,
    pace: watch::Sender<Pace>,
    done: Arc<Done>,
    workers: Vec<JoinHandle<Result<Seen>>>,
}

impl Load {
    /// Starts the workers, which wait for `fill` or `pace`.
    pub fn start(users: &Client, orders: &Client) -> Self {
        let (begun, pace, done) = (Instant::now(), watch::Sender::new(Pace::Pause), Arc::<Done>::default());
        let workers = (0..WORKERS).map(|number| {
            let (users, orders, done) = (users.clone(), orders.clone(), done.clone());
            let worker = Worker { number, users, orders, begun, done, person: None, seen: Seen::default() };
            tokio::spawn(worker.run(pace.subscribe()))
        });
        Self { workers: workers.collect(), begun, pace, done }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Runs without pauses until there are `orders` orders, then stops. Returns the requests per second.
    pub async fn fill(&self, orders: usize) -> Result<f64> {
        let (begun, before) = (Instant::now(), self.done.requests.load(Ordering::Relaxed));
        self.pace.send_replace(Pace::Unpaced);
        while self.done.orders.load(Ordering::Relaxed) < orders {
            self.check()?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let requests = self.done.requests.load(Ordering::Relaxed) - before;
        let rate = requests as f64 / begun.elapsed().as_secs_f64();
        self.pace.send_replace(Pace::Pause);
        // The caller may stop the services next, so requests in flight get time to end.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(rate)
    }

    /// Continues at this rate, in requests per second.
    pub fn pace(&self, rate: f64) {
        self.pace.send_replace(Pace::Every(Duration::from_secs_f64(WORKERS as f64 / rate.max(1.0))));
    }

    /// Fails if a worker has given up.
    pub fn check(&self) -> Result<()> {
        let gave_up = self.workers.iter().any(JoinHandle::is_finished);
        ensure!(!gave_up, "the load has given up; the reason is above");
        Ok(())
    }

    /// Stops the workers, and returns all that they have seen.
    pub async fn stop(self) -> Result<Seen> {
        self.pace.send_replace(Pace::Over);
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
    begun: Instant,
    done: Arc<Done>,
    person: Option<Person>,
    seen: Seen,
}

/// A person, and an order to pay.
#[derive(Clone)]
struct Person {
    user: String,
    order: Option<String>,
}

impl Worker {
    async fn run(mut self, mut pace: watch::Receiver<Pace>) -> Result<Seen> {
        let (mut turn, mut due) = (0, Instant::now());
        loop {
            let now = *pace.borrow_and_update();
            match now {
                Pace::Over => return Ok(self.seen),
                Pace::Pause => {
                    pace.changed().await?;
                    due = Instant::now();
                    if let Pace::Every(interval) = *pace.borrow() {
                        // One worker after the other, so that requests come one by one.
                        due += interval * u32::try_from(self.number)? / u32::try_from(WORKERS)?;
                    }
                    continue;
                }
                Pace::Unpaced => due = Instant::now(),
                Pace::Every(_) => tokio::time::sleep_until(due.into()).await,
            }
            let outcome = self.turn(turn).await;
            self.note(&outcome, matches!(now, Pace::Every(_)).then_some(due));
            ensure!(self.seen.failed <= MOST_FAILURES, "a worker has given up");
            turn += 1;
            if let Pace::Every(interval) = now {
                due += interval;
            }
        }
    }

    /// Notes the outcome of a request, and its latency if it was `due` at a certain moment.
    fn note(&mut self, outcome: &Result<()>, due: Option<Instant>) {
        match outcome {
            Ok(()) => {
                self.done.requests.fetch_add(1, Ordering::Relaxed);
                self.seen.samples.extend(due.map(|due| {
                    let at = due.saturating_duration_since(self.begun);
                    Sample { at, latency: due.elapsed() }
                }));
            }
            Err(error) => {
                self.seen.failed += 1;
                let fault = format!("after {:.2} s: {error:#}", self.begun.elapsed().as_secs_f64());
                if self.seen.failed > MOST_FAILURES {
                    eprintln!("the load gives up: {fault}");
                }
                self.seen.faults.push(fault);
                self.seen.faults.truncate(SHOWN);
                // The request may have been committed, so the next one uses a new person.
                self.person = None;
            }
        }
    }

    /// Sends the person's next request.
    async fn turn(&mut self, turn: usize) -> Result<()> {
        let Some(Person { user, order }) = self.person.clone() else {
            let email = format!("person.{}.{turn}.{}@example.org", self.number, self.begun.elapsed().as_nanos());
            let registration = self.users.post("/users").json(&json!({ "email": email, "name": "Person" }));
            let user = note(&mut self.seen.users, &registration.answered(201).await?, "name")?;
            self.person = Some(Person { user, order: None });
            return Ok(());
        };
        match (turn % 10, order) {
            (0, _) => {
                let change = self.users.patch(format!("/users/{user}")).json(&json!({ "name": format!("Person {turn}") }));
                note(&mut self.seen.users, &change.answered(200).await?, "name")?;
                self.person = None;
                Ok(())
            }
            (1 | 6, _) => {
                self.users.get(format!("/users/{user}")).answered(200).await?;
                Ok(())
            }
            (2 | 4 | 7, Some(order)) => {
                let read = self.orders.get(format!("/orders/{order}")).answered(200).await?;
                let (version, known) = (read["version"].as_i64(), self.seen.orders.get(&order).map(|known| known.version));
                ensure!(version == known, "order {order} has version {version:?} instead of the acknowledged {known:?}");
                Ok(())
            }
            (5, Some(order)) => {
                let paid = self.orders.post(format!("/orders/{order}/pay")).answered(200).await?;
                note(&mut self.seen.orders, &paid, "status")?;
                self.person = Some(Person { user, order: None });
                Ok(())
            }
            _ => {
                let tea = json!({ "sku": "tea", "quantity": 1 + turn % 9, "unit_price_minor": 350 });
                let cup = json!({ "sku": "cup", "quantity": 1, "unit_price_minor": 1200 });
                let order = json!({ "user_id": user, "currency": "EUR", "items": [tea, cup] });
                let placed = self.orders.post("/orders").json(&order).answered(201).await?;
                let order = note(&mut self.seen.orders, &placed, "status")?;
                self.person = Some(Person { user, order: Some(order) });
                self.done.orders.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

/// Notes the acknowledged state of a user or an order, and returns its id.
fn note(all: &mut HashMap<String, Known>, entity: &Value, state: &str) -> Result<String> {
    let text = |field: &str| entity[field].as_str().map(str::to_owned).with_context(|| format!("{field} in {entity}"));
    let version = entity["version"].as_i64().with_context(|| format!("version in {entity}"))?;
    let id = text("id")?;
    all.insert(id.clone(), Known { version, state: text(state)? });
    Ok(id)
}
