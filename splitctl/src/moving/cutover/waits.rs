//! How long requests of the services waited for the switch, where services report it: see `contract/switches.sql`.

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::timeout;

const CHANNEL: &str = "splitctl_waits";
/// How long the login may take. The switch does not need it.
const LOGIN: Duration = Duration::from_secs(5);
/// A service says within this time that it has followed.
const ANNOUNCED: Duration = Duration::from_millis(200);
/// A service that has said so reports within this time. All count from the commit.
const REPORTED: Duration = Duration::from_secs(3);
/// What has arrived is read in this time.
const READ: Duration = Duration::from_millis(20);

/// What the processes of the services have reported.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Waits {
    /// How many processes.
    pub processes: usize,
    /// How many of their requests were under way at the switch.
    pub requests: u64,
    /// The longest of these, in milliseconds.
    pub longest: f64,
}

/// A process first says that it has followed, and later the rest.
#[derive(Deserialize)]
struct Report {
    owner: String,
    generation: i64,
    requests: Option<u64>,
    longest_ms: Option<f64>,
}

/// A session that hears the reports.
pub(super) struct Listener(PgListener);

impl Listener {
    /// Listens in the database at `url`, which the tables enter. `None` if that fails.
    pub(super) async fn start(url: &str) -> Option<Self> {
        let options = PgConnectOptions::from_str(url).ok()?.application_name("splitctl").disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(LOGIN).connect_with(options).await.ok()?;
        let mut listener = PgListener::connect_with(&pool).await.ok()?;
        listener.listen(CHANNEL).await.ok()?;
        Some(Self(listener))
    }

    /// The reports on a switch that was committed at `committed`. It waits for the processes that have said that they
    /// followed, and for nobody else.
    pub(super) async fn collect(mut self, owner_name: &str, generation: i64, committed: Instant) -> Option<Waits> {
        let (mut followed, mut waits) = (0, Waits::default());
        // The steps after the commit may have taken longer.
        let end = (committed + REPORTED).max(Instant::now() + READ);
        while Instant::now() < end {
            let limit = if followed > waits.processes { REPORTED } else { ANNOUNCED };
            let left = (committed + limit).saturating_duration_since(Instant::now());
            let Ok(Ok(heard)) = timeout(left.max(READ), self.0.recv()).await else { break };
            // Anybody may send anything here.
            let Ok(report) = serde_json::from_str::<Report>(heard.payload()) else { continue };
            if report.owner != owner_name || report.generation != generation {
                continue;
            }
            match (report.requests, report.longest_ms) {
                (Some(requests), Some(longest)) => {
                    waits.processes += 1;
                    waits.requests += requests;
                    waits.longest = waits.longest.max(longest);
                }
                _ => followed += 1,
            }
        }
        (waits.processes > 0).then_some(waits)
    }
}
