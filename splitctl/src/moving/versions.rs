//! The versions of the tables that splitctl keeps in a database. Another release may have begun the move: an older version
//! is upgraded in place, a newer one is refused before anything is touched.

use anyhow::Result;
use sqlx::{FromRow, query_as, query_scalar};

use super::side::Database;
use crate::exit::require;

/// The versions that this release reads and writes. `contract/switches.sql` and the journal's statements record them.
const KNOWN: [(&str, i32); 2] = [("switches", 1), ("journal", 3)];

#[derive(FromRow)]
struct Version {
    format: String,
    version: i32,
    release: String,
}

/// Refuses a database whose tables a newer release has written. The message says which release can continue.
///
/// # Errors
/// [`crate::exit::Refused`].
pub async fn check(database: &mut Database) -> Result<()> {
    for Version { format, version, release } in read(database).await? {
        let known = KNOWN.iter().find(|(name, _)| *name == format).map_or(0, |(_, known)| *known);
        require!(
            version <= known,
            "{}: splitctl.{format} has version {version}, and this splitctl ({}) knows versions up to {known}: continue \
             with splitctl {release} or newer. Nothing was changed",
            database.address(),
            env!("CARGO_PKG_VERSION")
        );
    }
    Ok(())
}

/// Whether a table of this database has an older version than this release writes, or none.
pub async fn is_outdated(database: &mut Database) -> Result<bool> {
    let recorded = read(database).await?;
    // The target has no journal.
    let kept = if database.side == super::Side::Source { &KNOWN[..] } else { &KNOWN[..1] };
    Ok(kept
        .iter()
        .any(|(format, known)| !recorded.iter().any(|recorded| recorded.format == *format && recorded.version >= *known)))
}

async fn read(database: &mut Database) -> Result<Vec<Version>> {
    let exists = query_scalar("select to_regclass('splitctl.versions') is not null");
    if !exists.fetch_one(&mut database.connection).await? {
        return Ok(Vec::new());
    }
    let versions = query_as("select format, version, release from splitctl.versions order by format");
    Ok(versions.fetch_all(&mut database.connection).await?)
}
