//! All SQL of the service: free functions over a connection. Only its own tables and the view `open_orders`.

pub mod events;
pub mod open_orders;
pub mod users;
