//! The database code of both services: connections, the place of a service's tables, the meaning of errors, the schema's
//! version. It has no statement on a service's tables, and shrinks as the split goes on.

#![warn(missing_docs)]

mod alone;
mod connector;
mod database;
mod error;
mod pool;
mod run;
mod schema;
mod settings;
mod switches;
mod warm;

pub use alone::alone;
pub use connector::InvalidUrl;
pub use database::Database;
pub use error::DatabaseError;
#[doc(hidden)]
pub use run::Run;
pub use schema::{MIGRATOR, SchemaError, check_schema, newest_migration, report_until_ready};
pub use settings::Settings;
pub use switches::{Side, Switch};
pub use warm::stay_warm;
