//! The users service through its HTTP interface, on a database of the test's own, as the service's own role.

mod changing;
mod events;
mod reading;
mod registering;
mod support;
