//! The standbys of a side. From Postgres 17 on they can have the slots of a move; then the stream goes on after one of them
//! has taken over.

mod setup;

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};

use crate::database::{address, connect_to_standby};
use crate::exit::require;
use crate::manifest::Owner;
use crate::moving::side::{Database, Side};
use crate::moving::slot;
use crate::output::note;
use setup::Setup;

/// How long the standbys may take to get a slot. Their workers look for one every 30 s at the latest.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it looks whether they have it.
const LOOK: Duration = Duration::from_millis(500);

/// A server that follows a side, as that side sees it.
#[derive(Debug, FromRow)]
pub struct Follower {
    /// What it calls itself.
    pub name: String,
    /// The physical slot that it uses; empty if it uses none.
    pub slot: String,
}

/// The standbys of a side.
pub struct Standbys {
    /// All of them.
    pub followers: Vec<Follower>,
    /// Those that splitctl can ask.
    pub reached: Vec<Standby>,
}

/// A standby that splitctl can ask.
pub struct Standby {
    /// Its host, port and database.
    pub address: String,
    /// How it is set up.
    pub setup: Setup,
    connection: PgConnection,
}

/// Whether a standby has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// It has.
    Yes,
    /// It will have, and the next switch waits for that.
    NotYet,
    /// It will not have, or splitctl cannot ask it: if it takes over, the stream may be lost.
    Unknown,
}

/// What one standby has of a slot, for people.
#[derive(Debug)]
pub struct Standing {
    /// Which standby it is, and what it has.
    pub text: String,
    /// Whether it has the slot.
    pub has: Has,
}

impl Standbys {
    /// Finds them, and connects to those whose address is known.
    pub async fn find(of: &mut Database) -> Result<Self> {
        let followers: Vec<Follower> = query_as(FOLLOWERS).fetch_all(&mut of.connection).await?;
        let mut reached: Vec<Standby> = Vec::new();
        if followers.is_empty() || of.version < 17 {
            return Ok(Self { followers, reached });
        }
        for url in &of.standbys {
            // A host that does not answer may be an old primary. A server that follows a standby gets no slots.
            if let Some(standby) = Standby::open(url).await
                && standby.setup.is_standby
                && standby.setup.system == of.identity.system
                && followers.iter().any(|follower| follower.slot == standby.setup.slot)
                && !reached.iter().any(|known| known.address == standby.address)
            {
                reached.push(standby);
            }
        }
        Ok(Self { followers, reached })
    }

    /// The names of all.
    pub fn names(&self) -> String {
        list(self.followers.iter())
    }

    /// The names of those that splitctl cannot ask.
    pub fn unknown(&self) -> Option<String> {
        let is_reached = |follower: &&Follower| self.reached.iter().any(|known| known.setup.slot == follower.slot);
        let names = list(self.followers.iter().filter(|follower| !is_reached(follower)));
        (!names.is_empty()).then_some(names)
    }

    /// Looks whether they have a slot.
    pub async fn look(&mut self, slot: &str) -> Vec<Standing> {
        let mut standings = Vec::new();
        for Standby { address, setup, connection } in &mut self.reached {
            let has = query_scalar(HAS).bind(slot).fetch_one(connection).await;
            let (has, what) = match (has.unwrap_or(false), setup.synchronises) {
                (true, _) => (Has::Yes, "has the slot of the stream"),
                (false, true) => (Has::NotYet, "does not have the slot of the stream yet; the next switch waits for it"),
                (false, false) => {
                    (Has::Unknown, "does not synchronise slots: a failover to it would lose the stream (`splitctl plan`)")
                }
            };
            standings.push(Standing { text: format!("the standby {address} {what}"), has });
        }
        if let Some(names) = self.unknown() {
            let text = format!(
                "{names}: splitctl cannot ask this standby, and a failover to it may lose the stream. Name all hosts in \
                 the URL, or list the standby in the manifest (`splitctl plan`)"
            );
            standings.push(Standing { text, has: Has::Unknown });
        }
        standings
    }
}

fn list<'a>(followers: impl Iterator<Item = &'a Follower>) -> String {
    followers.map(|follower| follower.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl Standby {
    async fn open(url: &str) -> Option<Self> {
        let mut connection = connect_to_standby(url).await.ok()?;
        let setup = Setup::read(&mut connection).await.ok()?;
        Some(Self { address: address(url), setup, connection })
    }
}

/// What the standbys of a side have of a slot there. Empty if there is none, or none is meant for them.
pub async fn look(of: &mut Database, owner: &Owner, slot: &str) -> Result<Vec<Standing>> {
    if !slot::for_standbys(of, owner) {
        return Ok(Vec::new());
    }
    let mut standbys = Standbys::find(of).await?;
    if standbys.followers.is_empty() {
        return Ok(Vec::new());
    }
    if let slot::Slot::Missing = slot::find(&mut of.connection, slot).await? {
        return Ok(Vec::new());
    }
    if !slot::is_for_standbys(of, slot).await? {
        return Ok(vec![Standing { text: for_none(of.side, slot), has: Has::Unknown }]);
    }
    Ok(standbys.look(slot).await)
}

/// A slot of an earlier release, or one that was made while the manifest had `failover = false`.
fn for_none(side: Side, slot: &str) -> String {
    format!(
        "{slot}: the slot was made without `failover`, so no standby of the {side} gets it. On the {}, run `alter \
         subscription {slot} disable`, `alter subscription {slot} set (failover = true)` and `alter subscription {slot} \
         enable`",
        side.other()
    )
}

/// Waits until the standbys that synchronise slots have this one, and warns of the others. `nudge` moves the slot: a standby
/// takes a slot over only from a position that it has reached itself.
///
/// # Errors
/// [`crate::exit::Refused`] with the standbys that do not get it.
pub async fn wait_for(
    of: &mut Database,
    owner: &Owner,
    slot: &str,
    mut nudge: impl AsyncFnMut(&mut PgConnection) -> Result<(), sqlx::Error>,
) -> Result<()> {
    let first = look(of, owner, slot).await?;
    for standing in first.iter().filter(|standing| standing.has == Has::Unknown) {
        note(format_args!("warning: {}", standing.text));
    }
    if !first.iter().any(|standing| standing.has == Has::NotYet) {
        return Ok(());
    }
    note(format_args!("waiting until the standbys of the {} have the slot {slot}", of.side));
    let mut standbys = Standbys::find(of).await?;
    let begun = Instant::now();
    loop {
        let looked = standbys.look(slot).await;
        let Some(lacking) = looked.iter().find(|standing| standing.has == Has::NotYet) else { return Ok(()) };
        require!(
            begun.elapsed() < PATIENCE,
            "{slot}: {}, and it has waited for {PATIENCE:?}. The standby's log says why; it needs max_replication_slots. \
             Repeat the command. Or write `failover = false` for the owner in the manifest: then a failover loses the \
             stream",
            lacking.text
        );
        // Only a superuser may do this; without it, the server does so every 15 s.
        let _ = query("select pg_log_standby_snapshot()").execute(&mut of.connection).await;
        nudge(&mut of.connection).await?;
        tokio::time::sleep(LOOK).await;
    }
}

/// A physical slot that streams from slots for standbys wait for: `synchronized_standby_slots` names it.
#[derive(Debug, FromRow)]
pub struct Awaited {
    /// Its name.
    pub slot: String,
    /// Whether the stream cannot go on: no standby uses it, and none of the others is enough.
    is_missing: bool,
}

/// All slots that streams wait for on a server of Postgres 17 or newer.
pub async fn list_awaited(of: &mut Database) -> Result<Vec<Awaited>, sqlx::Error> {
    query_as(AWAITED).fetch_all(&mut of.connection).await
}

/// What to do about those that no standby uses. As long as they are away, no stream for standbys goes on.
pub async fn awaited(of: &mut Database) -> Result<Option<String>> {
    if of.version < 17 {
        return Ok(None);
    }
    let awaited = list_awaited(of).await?.into_iter().filter(|awaited| awaited.is_missing);
    let slots: Vec<String> = awaited.map(|awaited| awaited.slot).collect();
    Ok((!slots.is_empty()).then(|| {
        format!(
            "synchronized_standby_slots on the {} names {}, which no standby uses, and the stream waits for it. Start that \
             standby, or take the slot out of the setting and reload",
            of.side,
            slots.join(", ")
        )
    }))
}

/// Whoever receives the WAL itself: by a physical slot, which everybody may see, or without one.
const FOLLOWERS: &str = r"
    select
        coalesce(nullif(r.application_name, ''), s.slot_name::text, 'process ' || r.pid) as name,
        coalesce(s.slot_name::text, '') as slot
    from (select slot_name, slot_type, temporary, active_pid from pg_replication_slots where active) s
    full join pg_stat_replication r on r.pid = s.active_pid
    where s.slot_type is distinct from 'logical'
      and s.temporary is not true
      and (s.slot_name is not null or r.state in ('catchup', 'streaming'))
    order by 1, 2";

/// A slot that is not whole yet is temporary, and a promotion drops it.
const HAS: &str = r"
    select exists (
        select
        from pg_replication_slots
        where slot_name = $1
          and synced
          and not temporary
          and invalidation_reason is null
    )";

/// A list of names. From Postgres 19 on it may also be a number of them: then not all need to be there.
const AWAITED: &str = r"
    select
        w.name as slot,
        s.slot_name is null and v.value not like '%(%' as is_missing
    from (select current_setting('synchronized_standby_slots') as value) v
    cross join regexp_split_to_table(v.value, '[^a-z0-9_]+') w (name)
    left join pg_replication_slots s on s.slot_name::text = w.name and s.slot_type = 'physical' and s.active
    where w.name <> ''
    order by 1";
