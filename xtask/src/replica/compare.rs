//! The replica and what is published, side by side.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;

use super::{CompareOptions, Format, Replica};

/// How often rows that differ are looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// Differences told one by one; more are only counted.
const TOLD: usize = 50;

/// A row that is not on both sides the same.
#[derive(Debug, FromRow, Serialize)]
pub(super) struct Difference {
    id: Uuid,
    /// `missing`, `extra` or `different`.
    difference: String,
    published_version: Option<i64>,
    replica_version: Option<i64>,
}

#[derive(Serialize)]
struct Told<'a> {
    replica: &'static str,
    #[serde(flatten)]
    difference: &'a Difference,
}

#[derive(Serialize)]
struct Sum {
    replica: &'static str,
    rows: i64,
    different: usize,
}

/// Compares, and reports what differs.
pub(super) async fn run(owner: &mut PgConnection, options: &CompareOptions) -> Result<ExitCode> {
    let chosen = if options.replicas.is_empty() { &Replica::ALL[..] } else { &options.replicas };
    let mut equal = true;
    for &replica in chosen {
        let differences = lasting(owner, replica, Duration::from_secs(options.patience)).await?;
        let rows = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from ({}) rows", replica.replicated())));
        let sum = Sum { replica: replica.view(), rows: rows.fetch_one(&mut *owner).await?, different: differences.len() };
        for difference in differences.iter().take(TOLD) {
            tell(options.format, &Told { replica: replica.view(), difference }, || difference.describe(replica));
        }
        tell(options.format, &sum, || {
            let Sum { replica, rows, different } = sum;
            format!("{replica}: {rows} rows, {different} not as published")
        });
        equal &= differences.is_empty();
    }
    Ok(ExitCode::from(u8::from(!equal)))
}

fn tell(format: Format, line: &impl Serialize, text: impl FnOnce() -> String) {
    match format {
        Format::Text => println!("{}", text()),
        Format::Json => println!("{}", serde_json::to_string(line).expect("strings and numbers are JSON")),
    }
}

impl Difference {
    /// In words; what the rows hold is not for a terminal.
    fn describe(&self, replica: Replica) -> String {
        let Self { id, difference, published_version, replica_version } = self;
        let version = |version: &Option<i64>| version.map_or("–".to_owned(), |version| version.to_string());
        format!(
            "{}: {id} is {difference} (version published {}, in the replica {})",
            replica.view(),
            version(published_version),
            version(replica_version)
        )
    }
}

/// What differs and goes on differing: an event may be on its way, so those that differ are looked at again, and only those.
pub(super) async fn lasting(owner: &mut PgConnection, replica: Replica, patience: Duration) -> Result<Vec<Difference>> {
    let deadline = Instant::now() + patience;
    let mut differences = find(owner, replica, None).await?;
    while !differences.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        let suspects: BTreeSet<Uuid> = differences.iter().map(|difference| difference.id).collect();
        differences = find(owner, replica, Some(suspects.into_iter().collect())).await?;
    }
    Ok(differences)
}

/// Both sides are read by one statement, so as they were at one moment.
async fn find(owner: &mut PgConnection, replica: Replica, among: Option<Vec<Uuid>>) -> Result<Vec<Difference>> {
    let (published, replicated) = (replica.published(), replica.replicated());
    let statement = format!(
        "select coalesce(p.key, r.key) as id, p.version as published_version, r.version as replica_version,
             case when r.key is null then 'missing' when p.key is null then 'extra' else 'different' end as difference
         from (select * from ({published}) p where $1::uuid[] is null or key = any($1)) p
         full join (select * from ({replicated}) r where $1::uuid[] is null or key = any($1)) r using (key)
         where (p.version, p.content) is distinct from (r.version, r.content)
         order by 1"
    );
    Ok(sqlx::query_as(AssertSqlSafe(statement)).bind(among).fetch_all(owner).await?)
}
