//! Tries a migration on the side that only receives, in a transaction that is rolled back: the catalog says what each
//! statement does. Nobody but the stream waits for its locks.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use super::effect::{DETACHED, Effect};
use super::files::with_applications_path;
use super::planned::{Planned, Way};
use super::script::{Says, Statement};
use super::seen::{FITS, Seen};
use crate::database::{execute, sqlstate};
use crate::exit::Refused;
use crate::manifest::Owner;
use crate::moving::Database;
use crate::moving::crossings::crossing::APPLICATIONS_PATH;

/// Plans every statement. Those that are `done` are not tried again.
///
/// # Errors
/// [`Refused`] with the first statement that cannot run during a move, the reason, and what to do.
pub async fn plan(
    owner: &Owner,
    to: &Database,
    statements: &[Statement],
    done: &BTreeSet<i32>,
    is_alone: bool,
) -> Result<Vec<Planned>> {
    let mut trial = Trial { owner, connection: with_applications_path(to).await?, settings: Vec::new(), is_alone };
    execute(&mut trial.connection, "begin").await?;
    let mut seen = trial.look().await?;
    let mut planned = Vec::new();
    for (nth, statement) in (1..).zip(statements) {
        let refused = |why: String| Refused(format!("statement {nth} ({}): {why}. Nothing was changed", statement.shown()));
        planned.push(match statement.says() {
            _ if done.contains(&nth) => Planned::going(Way::ReceiverFirst),
            Says::Refused(why) => return Err(refused(why.to_owned()).into()),
            Says::Goes(Way::Session) => trial.set(statement).await?,
            Says::Goes(way) => Planned::going(way),
            Says::Unknown => trial.attempt(statement, &mut seen).await?.map_err(refused)?,
        });
    }
    execute(&mut trial.connection, "rollback").await?;
    Ok(planned)
}

struct Trial<'a> {
    owner: &'a Owner,
    connection: PgConnection,
    settings: Vec<String>,
    is_alone: bool,
}

impl Trial<'_> {
    /// Definitions are put into words by a path without schemas of the user, as everywhere else.
    async fn look(&mut self) -> Result<Seen> {
        execute(&mut self.connection, "reset role; set search_path = pg_catalog, pg_temp").await?;
        let seen = Seen::read(&mut self.connection, self.owner).await?;
        let settings = self.settings.join("; ");
        execute(&mut self.connection, format!("{APPLICATIONS_PATH}; {settings}")).await?;
        Ok(seen)
    }

    async fn set(&mut self, statement: &Statement) -> Result<Planned> {
        execute(&mut self.connection, statement.sql.clone()).await?;
        self.settings.push(statement.sql.clone());
        Ok(Planned::going(Way::Session))
    }

    /// Runs a statement, and judges what it has done.
    async fn attempt(&mut self, statement: &Statement, seen: &mut Seen) -> Result<Result<Planned, String>> {
        execute(&mut self.connection, "savepoint splitctl").await?;
        match execute(&mut self.connection, statement.sql.clone()).await {
            Ok(()) => {}
            Err(error) => {
                let Some(state) = sqlstate(&error) else { return Err(error.into()) };
                execute(&mut self.connection, "rollback to savepoint splitctl").await?;
                return Ok(self.explain(&state, &error, statement));
            }
        }
        let after = self.look().await?;
        for [was, is] in seen.retyped(&after) {
            let fits = query_scalar(FITS).bind(was.0).bind(i64::from(was.1)).bind(is.0).bind(i64::from(is.1));
            if fits.fetch_optional(&mut self.connection).await? != Some(true) {
                return Ok(Err("not every value of the old type is the same in the new one: use a new column".to_owned()));
            }
        }
        Ok(seen.judge(&after, statement).map(|Effect { way, before }| {
            *seen = after;
            Planned { way, before, is_alone: self.is_alone }
        }))
    }

    /// What an error of the trial says of the statement.
    fn explain(&self, state: &str, error: &sqlx::Error, statement: &Statement) -> Result<Planned, String> {
        let said = error.as_database_error().map_or_else(String::new, |error| error.message().to_owned());
        match state {
            // What no transaction may hold neither writes rows nor changes columns.
            "25001" if statement.has("detach") => Err(DETACHED.to_owned()),
            "25001" => {
                let way = if statement.creates_unique_index() { Way::SenderFirst } else { Way::ReceiverFirst };
                Ok(Planned { way, before: Vec::new(), is_alone: true })
            }
            // A rule that these rows break: an earlier statement of the migration may correct them.
            _ if state.starts_with("23") && statement.has_one_action() => {
                Ok(Planned { way: Way::SenderFirst, before: Vec::new(), is_alone: self.is_alone })
            }
            _ if state.starts_with("23") => Err(format!("{said}: write a statement for each change")),
            _ if state.starts_with("22") => Err(format!("{said}: use a new column")),
            _ => Err(format!(
                "the receiving side answers: {said}. A migration may only name what both sides have; run by hand what \
                 concerns tables that stay"
            )),
        }
    }
}
