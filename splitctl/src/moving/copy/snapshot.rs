//! A replication slot with the snapshot of the moment at which it begins. Only the replication protocol exports one, and
//! psql speaks it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::PgConnection;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::exit::Refused;
use crate::manifest::Owner;
use crate::moving::schema::pg_dump;
use crate::moving::{Database, slot};

/// A snapshot of the source, as long as it is held.
pub struct Snapshot {
    /// Its name, for `set transaction snapshot`.
    pub name: String,
    _psql: Child,
    _input: ChildStdin,
}

impl Snapshot {
    /// Creates a slot, which must not exist, and holds its snapshot.
    ///
    /// # Errors
    /// [`Refused`] with the open transactions that the new slot waits for.
    pub async fn export(from: &mut Database, slot_name: &str, owner: &Owner) -> Result<Self> {
        let mut command = Command::new(pg_dump::find_psql()?);
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]);
        pg_dump::connect(&mut command, &from.url, &[("replication", "database")], SETTINGS)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut psql = command.spawn().context("psql cannot be started")?;
        let (input, output) = psql.stdin.take().zip(psql.stdout.take()).context("psql has no pipes")?;
        let mut snapshot = Self { name: String::new(), _psql: psql, _input: input };
        let failover = if slot::for_standbys(from, owner) { ", FAILOVER" } else { "" };
        let create = format!("CREATE_REPLICATION_SLOT \"{slot_name}\" LOGICAL pgoutput (SNAPSHOT 'export'{failover});\n");
        snapshot._input.write_all(create.as_bytes()).await?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        match tokio::time::timeout(slot::CREATION, output.read_line(&mut line)).await {
            Err(_) => Err(snapshot.waited(&mut from.connection, slot_name).await),
            // Slot, position, snapshot, plugin.
            Ok(read) => match (read, line.trim().split('|').nth(2)) {
                (Ok(_), Some(name)) => {
                    snapshot.name = name.to_owned();
                    Ok(snapshot)
                }
                _ => Err(snapshot.failed(slot_name).await),
            },
        }
    }

    async fn waited(self, connection: &mut PgConnection, slot_name: &str) -> anyhow::Error {
        match slot::long_transactions(connection, Duration::ZERO).await {
            Ok(open) => slot::waits(slot_name, &open).into(),
            Err(error) => error.into(),
        }
    }

    async fn failed(mut self, slot_name: &str) -> anyhow::Error {
        let mut said = String::new();
        if let Some(errors) = &mut self._psql.stderr {
            // What it said until then is enough.
            let _ = tokio::time::timeout(slot::CREATION, errors.read_to_string(&mut said)).await;
        }
        Refused(format!(
            "{slot_name}: the replication slot cannot be created ({}). It needs wal_level = logical, a free slot, \
             REPLICATION, and a login for it in pg_hba.conf",
            said.trim()
        ))
        .into()
    }
}

/// The session is idle in a transaction as long as it holds the snapshot.
const SETTINGS: &str = "-c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0";
