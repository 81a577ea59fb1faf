//! Orders, and the rules of their life: without a database, without HTTP, without async.

mod currency;
mod customer;
mod fold;
mod order;

pub use currency::is_active_currency;
pub use customer::{Customer, Lookup};
pub use fold::{FoldError, Recorded, fold};
pub use order::{Event, InvalidTransition, Item, MAX_ITEMS, NewOrder, Order, Status};
