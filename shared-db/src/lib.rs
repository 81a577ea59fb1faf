//! What both services need of the database while they share one: connections, the meaning of its errors, the schema's
//! version. It holds no statement on a service's tables, and shrinks as the split goes on.

mod alone;
mod connector;
mod database;
mod error;
mod schema;

pub use alone::alone;
pub use connector::InvalidUrl;
pub use database::{Connection, Database, PoolStatus, Settings, Settle};
pub use error::DatabaseError;
pub use schema::{MIGRATOR, SchemaError, check_schema, newest_migration, report_until_ready};
