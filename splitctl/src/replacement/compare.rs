//! A borrowed object beside its replacement, row by row.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query_as};

use super::{BEGIN_READ_ONLY, read};
use crate::database::execute;
use crate::manifest::Borrowing;

/// The pause before rows that differ are compared again.
const PAUSE: Duration = Duration::from_millis(200);
/// How many differences a comparison lists; it counts all.
const LISTED: usize = 50;

/// A row as the file of `compare` returns it.
#[derive(Debug, FromRow, Serialize)]
pub struct Row {
    /// Its key, as text.
    pub key: String,
    /// How the replacement differs, such as `missing`, `extra` or `different`; null where both agree.
    pub difference: Option<String>,
    /// The row's version in the object. The file may leave versions out.
    #[sqlx(default)]
    pub published_version: Option<i64>,
    /// The row's version in the replacement.
    #[sqlx(default)]
    pub replica_version: Option<i64>,
}

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The borrowed object.
    pub what: String,
    /// How many keys were compared.
    pub rows: u64,
    /// How many of them differ.
    pub different: usize,
    /// The first of these, by key.
    pub differences: Vec<Row>,
}

/// Compares all rows, then those that differ again and again until `patience` ends: their events may be on the way.
///
/// # Errors
/// The file cannot be read, or its query fails.
pub async fn compare(connection: &mut PgConnection, borrowing: &Borrowing, patience: Duration) -> Result<Comparison> {
    let path = borrowing.compare.as_deref();
    let statement = read(borrowing, "compare", path)?;
    let failed = || path.map(|path| path.display().to_string()).unwrap_or_default();
    let deadline = Instant::now() + patience;
    let (rows, mut differences) = find(connection, &statement, None).await.with_context(failed)?;
    while !differences.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
        let suspects = differences.into_iter().map(|row| row.key).collect();
        (_, differences) = find(connection, &statement, Some(suspects)).await.with_context(failed)?;
    }
    let different = differences.len();
    differences.sort_by(|a, b| a.key.cmp(&b.key));
    differences.truncate(LISTED);
    Ok(Comparison { what: borrowing.what.clone(), rows, different, differences })
}

/// The number of keys, and the rows that differ. One statement reads both sides, so it sees them at one moment.
async fn find(
    connection: &mut PgConnection,
    statement: &str,
    among: Option<Vec<String>>,
) -> Result<(u64, Vec<Row>), sqlx::Error> {
    execute(connection, BEGIN_READ_ONLY).await?;
    let (mut count, mut differences) = (0, Vec::new());
    let query = query_as(AssertSqlSafe(statement.to_owned())).persistent(false).bind(among);
    let mut rows = query.fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        let row: Row = row;
        count += 1;
        if row.difference.is_some() {
            differences.push(row);
        }
    }
    drop(rows);
    execute(connection, "rollback").await?;
    Ok((count, differences))
}
