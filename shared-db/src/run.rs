//! Running a statement, where the tables live now.

use crate::database::Connection;
use crate::switches::Switch;
use crate::{Database, DatabaseError};

/// How often one statement follows its tables. More often than that, something is wrong with whoever moves them.
const TURNS: u32 = 4;

/// Runs a function over a connection, and gives the connection back or closes it, as the outcome demands: a future of
/// `Result<T, DatabaseError>`.
///
/// ```ignore
/// let found = run!(app.database, connection => find_order(connection, id, in_view)).await?;
/// ```
///
/// The function gets a `&mut PgConnection` and returns a future of `Result<T, sqlx::Error>`. It commits all it does, or none:
/// by one statement, or by a transaction of its own. So if it is refused because its tables have moved (SQLSTATE 42501), it has
/// done nothing, and is **called again** on the other side: with the same arguments, which it may borrow and not consume.
///
/// A macro, since an async closure over a borrowed connection is not provably `Send` today.
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
                break run.settle(held, outcome);
            }
        }
    };
}

/// What [`run!`](crate::run!) is made of.
pub struct Run<'a> {
    database: &'a Database,
    /// Where the tables are taken to be.
    switch: Switch,
    turns: u32,
}

impl<'a> Run<'a> {
    /// On `database`.
    pub fn on(database: &'a Database) -> Self {
        Self { database, switch: Switch::NONE, turns: 0 }
    }

    /// A connection to where the tables are.
    ///
    /// # Errors
    /// [`DatabaseError`] in bounded time if there is none to be had.
    pub async fn connection(&mut self) -> Result<Connection, DatabaseError> {
        loop {
            self.switch = self.database.switch().await?;
            let mut held = self.database.connection(self.switch.side).await?;
            if self.database.is_sure() {
                return Ok(held);
            }
            match Box::pin(self.database.look_again(self.switch, &mut held)).await {
                Ok(true) => return Ok(held),
                // They have moved.
                Ok(false) => {}
                Err(error) => return held.settle(Err(error), false),
            }
        }
    }

    /// Whether a right was missing, which a move of the tables could explain.
    pub fn is_refused<T>(&self, outcome: &Result<T, sqlx::Error>) -> bool {
        let Err(sqlx::Error::Database(error)) = outcome else { return false };
        self.database.may_move() && self.turns < TURNS && error.code().as_deref() == Some("42501")
    }

    /// Whether the tables have moved since, so that the statement can be run again. The connection that refused it is of no
    /// more use then.
    pub async fn follow(&mut self, refused: &mut Connection) -> bool {
        self.turns += 1;
        // Boxed: what happens rarely should not make every request's future larger.
        Box::pin(self.database.follow(self.switch, refused)).await
    }

    /// Gives the connection back, or closes it if the statement showed that it is broken, along with all that are as old:
    /// after a restart of the server, one request fails and not one for each pooled connection. Where the tables are no more,
    /// none is kept.
    ///
    /// # Errors
    /// What the statement's error means.
    pub fn settle<T>(self, connection: Connection, outcome: Result<T, sqlx::Error>) -> Result<T, DatabaseError> {
        let left = self.database.known_switch().is_some_and(|known| known.side != self.switch.side);
        connection.settle(outcome, !left)
    }
}
