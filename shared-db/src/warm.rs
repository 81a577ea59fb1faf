//! Connections to where the tables may go next.

use std::time::Duration;

use crate::Database;

/// How many are kept at most: as many as are in use, in most places. A login costs both ends milliseconds of CPU for the
/// password's hashing, and all requests under way turn at once.
const IDLE: usize = 16;
/// How often they are looked after; each is asked for a sign of life by that.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps a few connections open to the side that is not in use, for as long as there is one. Failures are silent: nobody needs
/// that side yet.
pub async fn stay_warm(database: Database) {
    while database.may_move() {
        // Without an answer from a database nobody knows which side that is; requests and readiness report it.
        if let Ok(switch) = database.switch().await {
            database.open_idle(switch.side.other(), IDLE).await;
            let _ = tokio::time::timeout(LOOK, database.turned(switch)).await;
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
}
