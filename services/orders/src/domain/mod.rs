//! What an order is and what may happen to one: rules without a database, HTTP or waiting.

mod currency;
mod fold;
mod order;

pub use currency::is_active_currency;
pub use fold::{FoldError, Recorded, fold};
pub use order::{Event, InvalidTransition, Item, NewOrder, Order, Status};
