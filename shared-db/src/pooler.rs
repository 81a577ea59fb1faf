//! Whether a pooler stands before the database that a service cannot work with.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::database::Database;
use crate::switches::Side;

/// The longest time for the check. A database that is away or slow is no reason not to start.
const CHECK: Duration = Duration::from_secs(2);
/// After this silence the server closes the connections of the check.
const SILENCE: Duration = Duration::from_secs(10);

/// Why a service cannot work with the pooler in front of its database.
#[derive(Debug, thiserror::Error)]
pub enum Pooler {
    /// The sessions of a transaction change, and do not have its prepared statements.
    #[error(
        "leads to a pooler in transaction mode that does not keep prepared statements: use a pooler in session mode, \
         PgBouncer 1.21 or newer with `max_prepared_statements`, or Postgres' own address"
    )]
    ForgetsStatements,
    /// It refuses what a session is begun with.
    #[error(
        "leads to a pooler that does not accept this program's settings: set `ignore_startup_parameters = options, \
         extra_float_digits` in PgBouncer, or use Postgres' own address"
    )]
    RefusesSettings,
}

impl Database {
    /// Checks that sessions keep their prepared statements. A database that does not answer passes.
    ///
    /// # Errors
    /// [`Pooler`], if there is one that a service cannot work with.
    pub async fn check_pooler(&self) -> Result<(), Pooler> {
        timeout(CHECK, self.try_statements()).await.unwrap_or(Ok(()))
    }

    async fn try_statements(&self) -> Result<(), Pooler> {
        let mut sessions = Vec::new();
        for _ in 0..2 {
            match self.pool(Side::Source).manager().open(SILENCE).await {
                Ok(session) => sessions.push(session),
                Err(error) => {
                    return if is_refusal(&error, "startup parameter") { Err(Pooler::RefusesSettings) } else { Ok(()) };
                }
            }
        }
        let [first, second] = &mut sessions[..] else { return Ok(()) };
        match converse(first, second).await {
            Ok(true) => Ok(()),
            // The statement of the other session.
            Ok(false) => Err(Pooler::ForgetsStatements),
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("26000" | "42P05")) => {
                Err(Pooler::ForgetsStatements)
            }
            Err(error) if is_refusal(&error, "pooling mode") => Err(Pooler::ForgetsStatements),
            // The database is in trouble of its own, which requests and readiness report.
            Err(_) => Ok(()),
        }
    }
}

/// Whether a pooler refuses by itself what the text names. `PgBouncer` has one code for nearly all that it refuses, also
/// because Postgres is away or because it has too many clients: only the text tells them apart.
fn is_refusal(error: &sqlx::Error, of: &str) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("08P01") && error.message().contains(of))
}

/// Has two sessions exchange their connections to the server, if a pooler gives them out for each transaction. Whether each
/// finds its own statement afterwards. Both give theirs the same name.
async fn converse(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (mut one, mut other) = (first.begin().await?, second.begin().await?);
    let mut own = ask(&mut one, FIRST).await? == "first" && ask(&mut other, SECOND).await? == "second";
    one.commit().await?;
    other.commit().await?;
    // A pooler gives out the connection that was returned last, or the one that was returned first.
    for _ in 0..2 {
        own &= ask(first, FIRST).await? == "first";
    }
    let mut other = second.begin().await?;
    own &= ask(&mut other, SECOND).await? == "second" && ask(first, FIRST).await? == "first";
    other.commit().await?;
    Ok(own)
}

#[expect(clippy::disallowed_methods, reason = "no statement on a table, and the same for each role")]
async fn ask(connection: &mut PgConnection, statement: &'static str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(statement).fetch_one(connection).await
}

const FIRST: &str = "select 'first'::text";

const SECOND: &str = "select 'second'::text";
