//! `orders rebuild`: are the orders' rows what their events say? What differs is reported, and repaired.

use std::collections::HashMap;
use std::process::ExitCode;

use chassis::error::chain;
use chassis::events::LoggedEvent;
use chassis::events::progress::Progress;
use clap::{Args, ValueEnum};
use serde::Serialize;
use shared_db::{Database, DatabaseError, run};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::db::rebuild::{StoredOrder, estimate_orders, events_by_id, lock_order, next_ids, orders_by_id, replace_order};
use crate::domain::{Order, fold};
use crate::events::read;

/// Orders compared in one transaction.
const BATCH: i64 = 500;

/// What `orders rebuild` is to do.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Only report the differences
    #[arg(long)]
    check: bool,
    /// How the report looks; json: one object a line, for each difference and at last the sum
    #[arg(long, default_value = "text")]
    format: Format,
}

/// How the report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// An order whose rows are not what its events say.
#[derive(Debug, Serialize)]
struct Difference {
    order_id: Uuid,
    differences: Vec<String>,
    repaired: bool,
}

/// What was found in all.
#[derive(Debug, Default, Serialize)]
struct Sum {
    orders: u64,
    different: u64,
    repaired: u64,
}

/// Compares all orders with their events, and repairs those that differ unless asked not to.
///
/// # Errors
/// What kept it from being done to the end.
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
    stored: Option<StoredOrder>,
    folded: Result<Order, String>,
}

/// The next orders after one, seen at a single moment.
async fn read_batch(connection: &mut PgConnection, after: Uuid) -> Result<Vec<Found>, sqlx::Error> {
    let mut snapshot = connection.begin_with("begin isolation level repeatable read read only").await?;
    let ids = next_ids(&mut snapshot, after, BATCH).await?;
    let stored = orders_by_id(&mut snapshot, &ids).await?;
    let events = events_by_id(&mut snapshot, &ids).await?;
    snapshot.commit().await?;
    let mut stored: HashMap<Uuid, StoredOrder> = stored.into_iter().map(|stored| (stored.order.id, stored)).collect();
    let mut logs: HashMap<Uuid, Vec<LoggedEvent>> = HashMap::new();
    for event in events {
        logs.entry(event.subject).or_default().push(event);
    }
    let found = ids.into_iter().map(|id| Found {
        id,
        stored: stored.remove(&id),
        folded: fold_log(id, logs.get(&id).map_or(&[], Vec::as_slice)),
    });
    Ok(found.collect())
}

fn fold_log(id: Uuid, log: &[LoggedEvent]) -> Result<Order, String> {
    let recorded: Result<Vec<_>, _> = log.iter().map(read).collect();
    let recorded = recorded.map_err(|error| chain(&error))?;
    fold(id, recorded).map_err(|error| chain(&error))?.ok_or_else(|| "it has no events".to_owned())
}

impl Found {
    /// What differs, in words.
    fn differences(&self) -> Vec<String> {
        let (stored, folded) = match (&self.stored, &self.folded) {
            (_, Err(reason)) => return vec![reason.clone()],
            (None, Ok(_)) => return vec!["its row is missing".to_owned()],
            (Some(stored), Ok(folded)) => (stored, folded),
        };
        let StoredOrder { order: stored, well_numbered } = stored;
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
        if stored.items != folded.items || !well_numbered {
            differences.push("its items are not those of its events".to_owned());
        }
        differences
    }
}

/// Makes the order's rows what its events say; `false` if a rule of the schema does not allow that.
async fn repair(database: &Database, id: Uuid) -> Result<bool, DatabaseError> {
    match run!(database, connection => replace(connection, id)).await {
        Ok(done) => Ok(done),
        Err(DatabaseError::Constraint { name, .. }) => {
            tracing::warn!(order.id = %id, constraint = name, "the schema does not allow the order that its events say");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Reads the events again under the row's lock: since the comparison, requests have gone on.
async fn replace(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock_order(&mut transaction, id).await?;
    let events = events_by_id(&mut transaction, &[id]).await?;
    let Ok(order) = fold_log(id, &events) else {
        return transaction.rollback().await.map(|()| false);
    };
    replace_order(&mut transaction, &order).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Differences go to standard output, progress to standard error.
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
