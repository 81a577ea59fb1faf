//! The statements that this process uses, as Postgres knows them. Connections to the side where the tables may move next
//! have them prepared, so the first requests after a switch need one round trip.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgTypeInfo;
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr, SqlStr};
use tokio::time::Instant;

/// The most statements that are kept. The driver keeps 100 for each connection.
const MOST: usize = 80;
/// The pause before a statement that the other side refused is tried again. It doubles with each refusal.
const PAUSE: Duration = Duration::from_secs(3);
/// The most doublings of that pause: to about an hour.
const MOST_DOUBLINGS: u32 = 10;

/// A statement, with the types of its parameters as the driver named them: so the server prepares the very same.
pub(crate) struct Statement {
    /// Which one it is in this process.
    number: usize,
    text: SqlStr,
    types: Vec<PgTypeInfo>,
}

impl Statement {
    /// Prepares it. The driver's cache has it from then on.
    pub(crate) async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.prepare_with(self.text.clone(), &self.types).await.map(drop)
    }

    /// Which one it is in this process.
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

/// The statements of a process.
#[derive(Default)]
pub(crate) struct Statements {
    known: Mutex<HashMap<String, Known>>,
    /// How many connections to the other side have all of them prepared.
    warm: AtomicUsize,
}

struct Known {
    statement: Arc<Statement>,
    refusals: u32,
    /// When the other side, which refused it, is asked again.
    again: Option<Instant>,
}

impl Statements {
    /// Adds what this connection has prepared.
    pub(crate) async fn learn(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for (text, types) in prepared(connection).await? {
            let mut known = self.known();
            if known.len() >= MOST || known.contains_key(&text) {
                continue;
            }
            let types = types.into_iter().map(PgTypeInfo::with_oid).collect();
            let text_of_driver = AssertSqlSafe(text.clone()).into_sql_str();
            let statement = Arc::new(Statement { number: known.len(), text: text_of_driver, types });
            known.insert(text, Known { statement, refusals: 0, again: None });
        }
        Ok(())
    }

    /// Those that the other side has not refused lately.
    pub(crate) fn due(&self) -> Vec<Arc<Statement>> {
        let now = Instant::now();
        let known = self.known();
        let due = known.values().filter(|known| known.again.is_none_or(|again| again <= now));
        due.map(|known| known.statement.clone()).collect()
    }

    /// Notes that the other side refused a statement: its tables are not there yet.
    pub(crate) fn refuse(&self, statement: &Statement) {
        if let Some(known) = self.known().get_mut(statement.text.as_str()) {
            known.again = Some(Instant::now() + PAUSE * 2_u32.pow(known.refusals.min(MOST_DOUBLINGS)));
            known.refusals += 1;
        }
    }

    /// Forgets all refusals: another side is the other one now.
    pub(crate) fn turn(&self) {
        for known in self.known().values_mut() {
            (known.refusals, known.again) = (0, None);
        }
        self.note_warm(0);
    }

    /// Notes how many connections are warm.
    pub(crate) fn note_warm(&self, connections: usize) {
        self.warm.store(connections, Ordering::Relaxed);
    }

    /// How many connections are warm.
    pub(crate) fn warm(&self) -> usize {
        self.warm.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the driver has prepared on this connection, the most used first. Types that a schema defines have other numbers in
/// another database, so statements with one are left out.
#[expect(clippy::disallowed_methods, reason = "the same for each role, and no statement on a table")]
async fn prepared(connection: &mut PgConnection) -> Result<Vec<(String, Vec<Oid>)>, sqlx::Error> {
    sqlx::query_as(
        "select statement, parameter_types::oid[]
         from pg_prepared_statements
         where not from_sql
           and not exists (select 1 from unnest(parameter_types::oid[]) parameter (type) where type >= 16384)
         order by generic_plans + custom_plans desc
         limit $1",
    )
    .bind(MOST as i64)
    .fetch_all(connection)
    .await
}
