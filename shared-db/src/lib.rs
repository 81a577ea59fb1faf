//! The database code of both services: connections, the place of a service's tables, the meaning of errors, the schema's
//! version. It has no statement on a service's tables, and shrinks as the split goes on.

#![warn(missing_docs)]

mod alone;
mod answer;
mod connector;
mod database;
mod error;
mod executor;
mod json;
mod login;
mod pool;
mod pooler;
mod probe;
mod queue;
mod redact;
mod run;
mod schema;
mod settings;
mod sightings;
mod sqlstate;
mod standbys;
mod statements;
mod status;
mod summary;
mod switches;
mod switching;
mod traces;
mod url;
mod waits;
mod warm;
mod writes;

pub use alone::alone;
#[doc(hidden)]
pub use answer::Timer;
pub use database::leaving::KeptWarm;
pub use database::{Database, describe_metrics};
pub use error::DatabaseError;
pub use json::JsonText;
pub use pool::Connection;
pub use pooler::Pooler;
#[doc(hidden)]
pub use run::Run;
pub use schema::{MIGRATOR, SchemaError, check_schema, newest_migration};
pub use settings::Settings;
pub use standbys::{End, Ending, Transaction, watch_standbys};
pub use switches::{Side, Switch};
pub use url::{DatabaseUrl, InvalidUrl};
pub use warm::{stay_warm, warm_up};
