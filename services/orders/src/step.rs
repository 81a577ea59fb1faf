//! A step of an order: read the order, take the step, write the order and its event.

use chassis::auth::Caller;
use chassis::events::{Position, ReadAfter};
use chrono::Utc;
use shared_db::change;
use uuid::Uuid;

use crate::App;
use crate::db::orders::update_order;
use crate::db::rows::Found;
use crate::domain::{Event, Order};
use crate::error::Error;
use crate::events::announce;

/// How often a step is retried after another request changed the same order first.
const ATTEMPTS: usize = 50;

/// Takes the step `event` for `caller` if `allowed` accepts the present order, again if another request was faster. Returns
/// the order after the step, and the position of its event in the log. No transaction is open in between: the write compares
/// the version.
///
/// # Errors
/// The error of `allowed`; [`Error::NotFound`], [`Error::InvalidTransition`], [`Error::Contended`], and the database's.
pub async fn take_step(
    app: &App,
    caller: &Caller,
    id: Uuid,
    event: &Event,
    allowed: impl Fn(&Order) -> Result<(), Error>,
) -> Result<(Found, Position), Error> {
    for _ in 0..ATTEMPTS {
        let found = app.customers.find_order(&app.database, id, ReadAfter::NOW).await?;
        let Found { order, customer } = found.ok_or(Error::NotFound)?;
        allowed(&order)?;
        let order = order.after(event, Utc::now())?;
        let announcement = announce(event, &order).by(caller);
        let written = change!(app.database, id, connection => update_order(connection, &order, &announcement)).await?;
        if let Some(position) = written {
            app.wakeups.wake();
            return Ok((Found { order, customer }, position));
        }
    }
    Err(Error::Contended)
}
