//! Settings of the servers themselves, by their files or their defaults, where neither role nor database has its own.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::moving::Move;
use crate::moving::schema::pg_dump;

/// Settings that a session begins with and that decide what its statements do. Others, such as memory, differ between
/// servers for good reasons.
pub const OF_SESSIONS: &str = "
    (
        s.category like 'Client Connection Defaults%'
        or s.category like 'Version and Platform Compatibility%'
        or s.category = 'Customized Options'
    )
    and s.context in ('user', 'superuser')
    and s.name not like 'vacuum%'
    and s.name not in ('pg_stat_statements.track', 'session_replication_role')";

/// What the sessions of both servers begin with, by the names in lower case.
#[derive(Default)]
pub(super) struct Servers {
    pub source: BTreeMap<String, String>,
    pub target: BTreeMap<String, String>,
}

impl Servers {
    pub(super) async fn read(the_move: &Move) -> Result<Self> {
        let (source, target) = tokio::try_join!(read(&the_move.source.url), read(&the_move.target.url))?;
        Ok(Self { source, target })
    }

    /// The settings that both servers know and that differ: the name, and the values of source and target.
    pub(super) fn differences(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.source.iter().filter_map(|(name, value)| {
            let other = self.target.get(name).filter(|other| *other != value)?;
            Some((name.as_str(), value.as_str(), other.as_str()))
        })
    }
}

/// What a session begins with if neither its role nor its database has a setting. psql asks: our driver sets some itself,
/// and the server then hides its own.
async fn read(url: &str) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(pg_dump::find_psql()?);
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]);
    command.args(["--field-separator-zero", "--record-separator-zero"]);
    command.arg("--command").arg(SETTINGS.replace("{of_sessions}", OF_SESSIONS));
    pg_dump::connect(&mut command, url, &[], "")?;
    // Those would hide the server's own, too.
    command.env_remove("PGOPTIONS");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("psql cannot be started")?;
    if !output.status.success() {
        bail!("psql failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("psql: a setting is not UTF-8")?;
    let mut parts = text.split('\0').map(|part| part.trim_end_matches('\n').to_owned());
    Ok(std::iter::from_fn(|| parts.next().zip(parts.next())).collect())
}

const SETTINGS: &str = "
    select lower(s.name), s.reset_val
    from pg_catalog.pg_settings s
    where {of_sessions}
      and s.source not in ('client', 'global', 'database', 'user', 'database user')";
