//! What both services need of the database while they share one: connections, where a service's tables are, the
//! meaning of errors, the schema's version. It holds no statement on a service's tables, and shrinks as the split goes on.

mod alone;
mod connector;
mod database;
mod error;
mod gauges;
mod run;
mod schema;
mod switches;
mod warm;

pub use alone::alone;
pub use connector::InvalidUrl;
pub use database::{Database, PoolStatus, Settings};
pub use error::DatabaseError;
#[doc(hidden)]
pub use run::Run;
pub use schema::{MIGRATOR, SchemaError, check_schema, newest_migration, report_until_ready};
pub use switches::{Side, Switch};
pub use warm::stay_warm;
