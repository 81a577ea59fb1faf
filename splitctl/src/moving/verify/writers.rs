//! What the stream has sent and this side does not show yet. A transaction is sent once its commit is on disk; its own side
//! shows it a moment later, and much later if its process gets no time in between. So a row may be newer on the other side
//! although nothing has changed here. A transaction keeps its locks until it is shown.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use crate::moving::relations::{self, Table};

/// How long to wait. If a writer takes longer, its rows are compared again.
const PATIENCE: Duration = Duration::from_millis(200);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until the transactions that are writing the table now have ended. Returns whether they have.
pub async fn wait_until_shown(connection: &mut PgConnection, table: &Table) -> Result<bool> {
    let oids = relations::oids(connection, std::slice::from_ref(&table.name)).await?;
    let mut writers: Vec<String> = query_scalar(WRITERS).bind(&oids).fetch_all(&mut *connection).await?;
    let begun = Instant::now();
    while !writers.is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let now: Vec<String> = query_scalar(WRITERS).bind(&oids).fetch_all(&mut *connection).await?;
        writers.retain(|writer| now.contains(writer));
    }
    Ok(writers.is_empty())
}

/// The transactions that hold a writer's lock, but for those that only wait for their client: they have not begun to commit.
const WRITERS: &str = r"
    select distinct l.virtualtransaction
    from pg_locks l
    left join pg_stat_activity a on a.pid = l.pid
    where l.granted
      and l.locktype = 'relation'
      and l.database = (select oid from pg_database where datname = current_database())
      and l.relation = any ($1)
      and l.mode not in ('AccessShareLock', 'RowShareLock')
      and coalesce(a.state, 'active') not like 'idle in transaction%'";
