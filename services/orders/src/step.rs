//! A step of an order: read it, take the step, store it.

use chrono::Utc;
use shared_db::run;
use uuid::Uuid;

use crate::App;
use crate::customers::Customer;
use crate::db::orders::{find_order, update_order};
use crate::domain::{Event, Order};
use crate::error::Error;
use crate::events::announce;

/// How often a step is tried again after another request changed the same order first. Each time one of them succeeds.
const ATTEMPTS: usize = 50;

/// Takes the step `event` with the order as it is now, if `allowed` lets it, again if another request was faster. No
/// transaction is held open meanwhile: the version guards the write. The order after it, and its customer if the view has one.
///
/// # Errors
/// Those of `allowed`; [`Error::NotFound`], [`Error::InvalidTransition`], [`Error::Contended`], and the database's.
pub async fn take_step(
    app: &App,
    id: Uuid,
    event: &Event,
    allowed: impl Fn(&Order) -> Result<(), Error>,
) -> Result<(Order, Option<Customer>), Error> {
    for _ in 0..ATTEMPTS {
        let found = run!(app.database, connection => find_order(connection, id, app.customers.in_view())).await?;
        let (order, customer) = found.ok_or(Error::NotFound)?;
        allowed(&order)?;
        let order = order.after(event, Utc::now())?;
        let announcement = announce(event, &order);
        if run!(app.database, connection => update_order(connection, &order, &announcement)).await? {
            app.wakeups.wake();
            return Ok((order, customer));
        }
    }
    Err(Error::Contended)
}
