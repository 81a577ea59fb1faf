//! Running a statement on the side where the tables are.

use crate::database::Database;
use crate::error::DatabaseError;
use crate::pool::Connection;
use crate::switches::Switch;

/// How often one statement follows its tables. If they move more often, something is wrong with the move.
const MAX_FOLLOWS: u32 = 4;

/// Runs a function over a connection, and returns the connection to the pool or closes it. A future of
/// `Result<T, DatabaseError>`.
///
/// ```ignore
/// let user = run!(app.database, connection => find_user(connection, id)).await?;
/// ```
///
/// The function gets a `&mut PgConnection` and returns a future of `Result<T, sqlx::Error>`. It must commit everything or
/// nothing: by one statement, or by a transaction of its own. If the database refuses it because its tables have moved
/// (SQLSTATE 42501), it has changed nothing, and is **called again** on the other side. Its arguments are the same: it may
/// borrow them, but not consume them.
///
/// This is a macro because today's compiler cannot prove that an async closure over a borrowed connection is `Send`.
#[macro_export]
macro_rules! run {
    ($database:expr, $connection:ident => $statement:expr) => {
        async {
            let mut run = $crate::Run::on(&$database);
            loop {
                let mut held = match run.connection().await {
                    Ok(held) => held,
                    Err(error) => break Err(error),
                };
                let $connection = &mut *held;
                let outcome = $statement.await;
                if run.is_refused(&outcome) && run.follow(&mut held).await {
                    continue;
                }
                break run.release(held, outcome);
            }
        }
    };
}

/// The parts of [`run!`](crate::run!).
pub struct Run<'a> {
    database: &'a Database,
    /// The switch that the newest connection follows.
    switch: Switch,
    follows: u32,
}

impl<'a> Run<'a> {
    /// On `database`.
    pub fn on(database: &'a Database) -> Self {
        Self { database, switch: Switch::NONE, follows: 0 }
    }

    /// A connection to the side where the tables are.
    ///
    /// # Errors
    /// [`DatabaseError`] in bounded time if no connection can be had.
    pub async fn connection(&mut self) -> Result<Connection, DatabaseError> {
        loop {
            self.switch = self.database.switch().await?;
            let mut held = self.database.pool(self.switch.side).connection().await?;
            if self.database.is_recent() {
                return Ok(held);
            }
            match Box::pin(self.database.is_newest(self.switch, &mut held)).await {
                Ok(true) => return Ok(held),
                // The tables have moved: the next round uses the other side.
                Ok(false) => {}
                Err(error) => return held.close(Err(error)),
            }
        }
    }

    /// Whether the role lacked a right. A move of the tables takes the rights away.
    pub fn is_refused<T>(&self, outcome: &Result<T, sqlx::Error>) -> bool {
        let Err(sqlx::Error::Database(error)) = outcome else { return false };
        self.database.may_move() && self.follows < MAX_FOLLOWS && error.code().as_deref() == Some("42501")
    }

    /// Whether the tables have moved, so that the statement can run again. The caller then drops the connection that refused
    /// it.
    pub async fn follow(&mut self, refused: &mut Connection) -> bool {
        self.follows += 1;
        // Boxed: what happens rarely should not make the future of every request larger.
        Box::pin(self.database.follow(self.switch, refused)).await
    }

    /// Returns the connection to the pool. It closes the connection if the statement showed that it is broken, and then all
    /// that are as old: after a restart of the server one request fails, not one for each connection. It also closes it if
    /// the tables have left its side.
    ///
    /// # Errors
    /// What the statement's error means.
    pub fn release<T>(self, connection: Connection, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        match self.database.known_switch() {
            Some(known) if known.side != self.switch.side => connection.close(outcome),
            _ => connection.release(outcome),
        }
    }
}
