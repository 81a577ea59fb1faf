//! Turning poolers to a side: the address, a reload, and clients go on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;

use super::console::Console;
use super::entry::Entry;
use super::{Pooler, hook};
use crate::moving::side::Side;

/// An operator's command that changes what the poolers' addresses lead to, and its limit.
pub type Hook<'a> = (&'a str, Duration);

/// Turns poolers to a side, whatever state they are in, over new sessions. Returns what did not work; clients of every
/// pooler that answers go on all the same.
pub async fn turn(poolers: &[Pooler], side: Side, hook: Option<Hook<'_>>) -> Vec<String> {
    let mut opened = Vec::new();
    for pooler in poolers {
        opened.push(Console::open(pooler).await);
    }
    let consoles = opened.iter_mut().map(|console| console.as_mut().map_err(|error| format!("{error:#}")));
    let consoles = poolers.iter().zip(consoles).collect();
    turn_over(consoles, side, hook, Reload::Always).await
}

/// Whether files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// What a killed run has changed may not have been read.
    Always,
    /// Nothing was changed.
    Never,
}

/// Does the same over open sessions. A pooler without a session has its error.
pub async fn turn_over(
    consoles: Vec<(&Pooler, Result<&mut Console, String>)>,
    side: Side,
    hook: Option<Hook<'_>>,
    reload: Reload,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (pooler, _) in &consoles {
        if reload == Reload::Always
            && let Err(error) = point(pooler, side)
        {
            failures.push(format!("{pooler}: {error:#}"));
        }
    }
    if let Some((command, limit)) = hook
        && let Err(error) = hook::run(command, side, Some(limit)).await
    {
        failures.push(format!("{error:#}"));
    }
    let turned = consoles.into_iter().map(async |(pooler, console)| match console {
        Ok(console) => turn_one(pooler, console, side, reload).await,
        Err(error) => vec![error],
    });
    failures.extend(join_all(turned).await.into_iter().flatten());
    failures
}

/// Writes a side's address into the entry, if splitctl keeps it.
fn point(pooler: &Pooler, side: Side) -> Result<()> {
    let Some(file) = &pooler.file else { return Ok(()) };
    Entry::read(file, &pooler.database)?.point_to(pooler.keys(side))
}

/// Reloads, and then resumes whatever came of that.
async fn turn_one(pooler: &Pooler, console: &mut Console, side: Side, reload: Reload) -> Vec<String> {
    let reloaded = if reload == Reload::Always { reload_and_check(pooler, console, side).await } else { Ok(()) };
    let resumed = console.resume().await;
    [reloaded, resumed].into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()
}

async fn reload_and_check(pooler: &Pooler, console: &mut Console, side: Side) -> Result<()> {
    console.reload().await?;
    if pooler.file.is_some() {
        let known = console.find_database().await?.with_context(|| format!("{pooler}: its database is gone"))?;
        ensure!(
            known.leads_to(pooler.keys(side)),
            "{pooler}: it has not taken the address of the {side} from its file, and leads to {}",
            known.address()
        );
    }
    Ok(())
}
