//! `orders rebuild`: compares the orders' rows with their events, and reports and repairs the differences.
//! A restored row has no idempotency key, because the log does not hold it.

use std::collections::HashMap;
use std::process::ExitCode;

use chassis::error::chain;
use chassis::events::progress::Progress;
use clap::{Args, ValueEnum};
use serde::Serialize;
use shared_db::{Database, DatabaseError, run};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::db::orders::orders_by_id;
use crate::db::rebuild::{estimate_orders, events_by_id, lock_order, misnumbered, next_ids, replace_order};
use crate::domain::Order;
use crate::events::{Logged, fold_log};

/// Orders compared in one transaction.
const BATCH: i64 = 500;

/// The options of `orders rebuild`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Report the differences without repairing them
    #[arg(long)]
    check: bool,
    /// Format of the report; json: one object a line, one for each difference and one for the sum at the end
    #[arg(long, default_value = "text")]
    format: Format,
}

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// An order whose rows differ from its events.
#[derive(Debug, Serialize)]
struct Difference {
    order_id: Uuid,
    differences: Vec<String>,
    repaired: bool,
}

/// The sum at the end of the report.
#[derive(Debug, Default, Serialize)]
struct Sum {
    orders: u64,
    different: u64,
    repaired: u64,
}

/// Compares all orders with their events, and repairs the rows that differ unless `--check` is set.
///
/// # Errors
/// Why it stopped before the end.
pub async fn run(database: &Database, options: &Options) -> Result<ExitCode, String> {
    let report = Report { format: options.format, progress: Progress::new("orders") };
    let sum = compare_all(database, options.check, &report).await.map_err(|error| chain(&error))?;
    report.sum(&sum);
    Ok(ExitCode::from(u8::from(sum.repaired < sum.different)))
}

async fn compare_all(database: &Database, check: bool, report: &Report) -> Result<Sum, DatabaseError> {
    report.progress.expect(run!(database, connection => estimate_orders(connection)).await?);
    let mut sum = Sum::default();
    let mut after = Uuid::nil();
    loop {
        let batch = run!(database, connection => read_batch(connection, after)).await?;
        let Some(last) = batch.last() else { return Ok(sum) };
        after = last.id;
        sum.orders += batch.len() as u64;
        for found in batch {
            let differences = found.differences();
            if differences.is_empty() {
                continue;
            }
            let repaired = !check && found.folded.is_ok() && repair(database, found.id).await?;
            sum.different += 1;
            sum.repaired += u64::from(repaired);
            report.difference(&Difference { order_id: found.id, differences, repaired });
        }
        report.progress.at(sum.orders);
    }
}

/// An order's rows beside the fold of its events.
struct Found {
    id: Uuid,
    stored: Option<Order>,
    misnumbered: bool,
    folded: Result<Order, String>,
}

/// The next orders above the id `after`, in one snapshot.
async fn read_batch(connection: &mut PgConnection, after: Uuid) -> Result<Vec<Found>, sqlx::Error> {
    let mut snapshot = connection.begin_with("begin isolation level repeatable read read only").await?;
    let ids = next_ids(&mut snapshot, after, BATCH).await?;
    let stored = orders_by_id(&mut snapshot, &ids).await?;
    let misnumbered = misnumbered(&mut snapshot, &ids).await?;
    let events = events_by_id(&mut snapshot, &ids).await?;
    snapshot.commit().await?;
    let mut stored: HashMap<Uuid, Order> = stored.into_iter().map(|order| (order.id, order)).collect();
    let mut logs: HashMap<Uuid, Vec<Logged>> = HashMap::new();
    for event in events {
        logs.entry(event.event.subject).or_default().push(event);
    }
    let found = ids.into_iter().map(|id| Found {
        id,
        stored: stored.remove(&id),
        misnumbered: misnumbered.contains(&id),
        folded: folded(id, logs.get(&id).map_or(&[], Vec::as_slice)),
    });
    Ok(found.collect())
}

fn folded(id: Uuid, log: &[Logged]) -> Result<Order, String> {
    fold_log(id, log).map_err(|error| chain(&error))?.ok_or_else(|| "it has no events".to_owned())
}

impl Found {
    /// The differences, in words.
    fn differences(&self) -> Vec<String> {
        let (stored, folded) = match (&self.stored, &self.folded) {
            (_, Err(reason)) => return vec![reason.clone()],
            (None, Ok(_)) => return vec!["its row is missing".to_owned()],
            (Some(stored), Ok(folded)) => (stored, folded),
        };
        let mut differences = Vec::new();
        let mut compare = |field: &str, row: &dyn ToString, log: &dyn ToString| {
            let (row, log) = (row.to_string(), log.to_string());
            if row != log {
                differences.push(format!("{field} is {row}, by its events {log}"));
            }
        };
        compare("user_id", &stored.user_id, &folded.user_id);
        compare("status", &stored.status.as_str(), &folded.status.as_str());
        compare("currency", &stored.currency, &folded.currency);
        compare("total_minor", &stored.total_minor, &folded.total_minor);
        compare("placed_at", &stored.placed_at, &folded.placed_at);
        compare("updated_at", &stored.updated_at, &folded.updated_at);
        compare("version", &stored.version, &folded.version);
        if stored.items != folded.items || self.misnumbered {
            differences.push("its items are not those of its events".to_owned());
        }
        differences
    }
}

/// Repairs the order's rows. `false` if a rule of the schema refuses the order that the events say.
async fn repair(database: &Database, id: Uuid) -> Result<bool, DatabaseError> {
    match run!(database, connection => replace(connection, id)).await {
        Ok(done) => Ok(done),
        Err(error @ DatabaseError::Refused { .. }) => {
            tracing::warn!(order.id = %id, %error, "not repaired: the schema refuses the order");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Reads the events again under the row's lock: a request may have changed the order since the comparison.
async fn replace(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock_order(&mut transaction, id).await?;
    let events = events_by_id(&mut transaction, &[id]).await?;
    let Ok(order) = folded(id, &events) else {
        return transaction.rollback().await.map(|()| false);
    };
    replace_order(&mut transaction, &order).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Prints differences to standard output and the progress to standard error.
struct Report {
    format: Format,
    progress: Progress,
}

impl Report {
    fn difference(&self, difference: &Difference) {
        self.print(difference, || {
            let Difference { order_id, differences, repaired } = difference;
            format!("order {order_id}: {}{}", differences.join("; "), if *repaired { " – repaired" } else { "" })
        });
    }

    fn sum(&self, sum: &Sum) {
        self.progress.finish();
        self.print(sum, || {
            let Sum { orders, different, repaired } = sum;
            format!("{orders} orders, {different} different from their events, {repaired} repaired")
        });
    }

    fn print(&self, line: &impl Serialize, text: impl FnOnce() -> String) {
        self.progress.print(&match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string(line).expect("strings and numbers are JSON"),
        });
    }
}
