//! Transactions that write tables of several owners, read from the write-ahead log by a slot that ends with the session.
//! The log names a change's table whatever its replica identity, so no table has to be changed for a watch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::{PgConnection, query, query_as, query_scalar};

use super::borrowings::TOGETHER;
use super::catalog::Catalog;
use super::finding::{Finding, Kind};
use super::lexer::{Token, tokens};
use super::ownership::Ownership;
use crate::database::sqlstate;
use crate::manifest::Manifest;
use crate::names::Qualified;
use crate::output::note;

/// How long the slot may wait for open transactions before the watch fails.
const SLOT_WAIT: Duration = Duration::from_secs(30);
/// The pause between two fetches of changes.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Watches for this long, and returns a finding for each set of several owners' tables that one transaction wrote.
pub async fn findings(
    connection: &mut PgConnection,
    duration: Duration,
    manifest: &Manifest,
    notes: &mut Vec<String>,
) -> Result<Vec<Finding>> {
    let slot =
        format!("splitctl_watch_{}", query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&mut *connection).await?);
    create_slot(connection, &slot).await?;
    let watched = watch(connection, &slot, duration).await;
    // The session goes on, and its slot would hold the log back.
    query("select pg_drop_replication_slot($1)").bind(&slot).execute(&mut *connection).await?;
    let (transactions, count) = watched?;
    notes.push(format!("{count} transactions wrote in the {} s of the watch", duration.as_secs_f32().round()));
    // Tables may have been created meanwhile.
    let catalog = Catalog::read(connection, Some(manifest)).await?;
    let owners = Ownership::of(manifest, &catalog);
    let mut crossings: BTreeMap<BTreeSet<i64>, u64> = BTreeMap::new();
    for (tables, times) in transactions {
        let known = tables.iter().filter_map(|table| catalog.find(table)).map(|(_, relation)| relation.root);
        let owned: BTreeSet<i64> = known.filter(|table| owners.get(*table).is_some()).collect();
        if owners.all(owned.iter().copied()).len() > 1 {
            *crossings.entry(owned).or_default() += times;
        }
    }
    Ok(crossings.into_iter().filter_map(|(tables, times)| finding(&catalog, &owners, &tables, times)).collect())
}

fn finding(catalog: &Catalog, owners: &Ownership, tables: &BTreeSet<i64>, times: u64) -> Option<Finding> {
    let mut names: Vec<String> = tables.iter().map(|&table| catalog.shown(table)).collect();
    names.sort();
    // The log does not name the writer, so the first owner by name stands for it.
    let from = owners.all(tables.iter().copied()).into_iter().next()?;
    let to = owners.others(&from, tables.iter().copied())?;
    let detail = format!("one transaction wrote all of these, {times} times while we watched");
    Some(Finding::new(Kind::Transaction, names.join(TOGETHER), &from, &to, detail))
}

async fn create_slot(connection: &mut PgConnection, slot: &str) -> Result<()> {
    let (level, may): (String, bool) = query_as(PRECONDITIONS).fetch_one(&mut *connection).await?;
    ensure!(
        level == "logical",
        "--watch reads the write-ahead log, and wal_level is {level}: set wal_level = logical and restart the server"
    );
    ensure!(may, "--watch needs a role with REPLICATION: `alter role … replication`, or connect as another");
    let limit = SLOT_WAIT.as_millis().to_string();
    query("select set_config('statement_timeout', $1, false)").bind(limit).execute(&mut *connection).await?;
    let created = query("select pg_create_logical_replication_slot($1, 'test_decoding', true)").bind(slot);
    let created = created.execute(&mut *connection).await;
    query("set statement_timeout = 0").execute(&mut *connection).await?;
    match created {
        Err(error) if sqlstate(&error).as_deref() == Some("57014") => {
            let waits = query_scalar::<_, String>(IN_THE_WAY).fetch_all(connection).await?.join("; ");
            bail!(
                "the watch cannot begin while older transactions that write are open: {waits}. End them, or try again later"
            )
        }
        created => created.map(drop).context("the slot for the watch cannot be made"),
    }
}

/// The sets of tables that transactions wrote, with how many wrote each set, and the number of all transactions.
async fn watch(
    connection: &mut PgConnection,
    slot: &str,
    duration: Duration,
) -> Result<(BTreeMap<BTreeSet<Qualified>, u64>, u64)> {
    let (start, mut noted) = (Instant::now(), Instant::now());
    let bar = ProgressBar::new(duration.as_secs());
    bar.set_style(ProgressStyle::with_template("watching {bar:30} {pos}/{len} s, {msg}")?);
    if bar.is_hidden() {
        note(format_args!("watching transactions for {} s", duration.as_secs_f32()));
    }
    let (mut sets, mut count) = (BTreeMap::new(), 0);
    loop {
        // Checked before the fetch, so that the last fetch sees what was committed until the end.
        let over = start.elapsed() >= duration;
        let mut transactions: BTreeMap<String, BTreeSet<Qualified>> = BTreeMap::new();
        for (xid, change) in query_as::<_, (String, String)>(CHANGES).bind(slot).fetch_all(&mut *connection).await? {
            transactions.entry(xid).or_default().extend(tables(&change));
        }
        count += transactions.len() as u64;
        for set in transactions.into_values() {
            *sets.entry(set).or_default() += 1;
        }
        let seen = format!("{count} transactions wrote");
        bar.set_position(start.elapsed().as_secs());
        if bar.is_hidden() && noted.elapsed() >= LINE_EVERY {
            noted = Instant::now();
            note(format_args!("watched {} of {} s, {seen}", start.elapsed().as_secs(), duration.as_secs()));
        }
        bar.set_message(seen);
        if over {
            bar.finish_and_clear();
            return Ok((sets, count));
        }
        tokio::time::sleep(PAUSE.min(duration.saturating_sub(start.elapsed()))).await;
    }
}

/// The tables of a change: `public.orders:`, and for a truncation several: `public.orders, public.users:`.
fn tables(change: &str) -> Vec<Qualified> {
    // The action and the values follow the colon.
    let tokens: Vec<Token> = tokens(change).take_while(|token| *token != Token::Other(':')).collect();
    let table = |name: &[Token]| match name {
        [Token::Word(schema), Token::Other('.'), Token::Word(name)] => Some(Qualified::new(schema, name)),
        _ => None,
    };
    tokens.split(|token| *token == Token::Other(',')).filter_map(table).collect()
}

const PRECONDITIONS: &str = r"
    select current_setting('wal_level'), r.rolsuper or r.rolreplication
    from pg_roles r
    where r.rolname = current_user";

/// Cuts the values off, because they are personal data.
const CHANGES: &str = r#"
    select distinct xid::text, substring(data from '^table ((?:"(?:[^"]|"")*"|[^":])*:)')
    from pg_logical_slot_get_changes($1, null, null, 'include-xids', '0', 'skip-empty-xacts', '1')
    where data like 'table %'"#;

const IN_THE_WAY: &str = r"
    select format(
        'process %s (role %s, %s, for %s s)',
        pid,
        coalesce(usename, '?'),
        coalesce(state, 'unknown'),
        extract(epoch from clock_timestamp() - xact_start)::int8
    )
    from pg_stat_activity
    where backend_xid is not null
      and pid <> pg_backend_pid()
    order by xact_start
    limit 5";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_its_tables_whatever_their_names() {
        let tables = |change| tables(change).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(tables("public.orders:"), ["orders"]);
        assert_eq!(tables("shop.\"a, \"\"b: c\":"), ["shop.\"a, \"\"b: c\""]);
        assert_eq!(tables("public.orders, shop.\"Odd\":"), ["orders", "shop.\"Odd\""]);
    }
}
