//! Idle connections to the side to which the tables may move next.

use std::time::Duration;

use crate::database::Database;

/// The most idle connections: as many as most services use. After a switch all requests need one at once, and each login
/// costs both ends milliseconds of CPU for the hash of the password.
const IDLE: usize = 16;
/// How often they are opened again and checked.
const INTERVAL: Duration = Duration::from_secs(60);

/// Keeps a few connections open to the side that is not in use, while the tables may move. Failures are silent: no request
/// needs that side yet.
pub async fn stay_warm(database: Database) {
    while database.may_move() {
        // Without a known switch the side is unknown too. Requests and readiness report why.
        if let Ok(switch) = database.switch().await {
            database.pool(switch.side.other()).open_idle(IDLE).await;
            let _ = tokio::time::timeout(INTERVAL, database.switched(switch)).await;
        } else {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
