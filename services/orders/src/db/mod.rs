//! All SQL of the service: free functions over a connection. Only its own tables and the view `customers`.

pub mod customers;
pub mod events;
pub mod lists;
pub mod orders;
pub mod rebuild;
pub mod rows;
