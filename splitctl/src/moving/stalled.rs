//! A stream that does not get on: where it stands, how often it has failed and on what, and for whom it waits.

use std::time::Duration;

use anyhow::Result;
use sqlx::{FromRow, PgConnection, query_as, query_scalar};

use super::objects::Names;
use super::side::Database;
use super::{slot, standbys};
use crate::database::execute;
use crate::sizes::show;

/// How long a stream that has something to send may stand still.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often to try to read what a slot sends next. Its worker uses it for a moment whenever it starts again.
const TRIES: u32 = 10;
/// How much of the end of a log is read.
const LOG: i64 = 256 << 10;

/// Where a stream stands, and why: the sessions for which its worker waits, or on what it has failed, by the log's words
/// where they may be read, else by the tables of the transaction that comes next.
///
/// # Errors
/// If a database cannot be asked.
pub async fn explain(from: &mut Database, to: &mut Database, name: &str, names: &Names) -> Result<String> {
    let Stand { mut text, unexplained } = locate(from, to, name).await?;
    let Some(subscription) = unexplained else { return Ok(text) };
    if let Some(said) = read_log(&mut to.connection, subscription, name).await {
        return Ok(format!("{text}; the log of the {} says: {said}", to.side));
    }
    let tables = list_next(&mut from.connection, name, names.publication()).await?;
    if !tables.is_empty() {
        text += &format!("; the next transaction changes {}: compare it on both sides", tables.join(", "));
    }
    Ok(format!("{text}. The log of the {} says more, and splitctl may not read it", to.side))
}

/// Where a stream stands, and who is in its way: for one that may only be slow.
///
/// # Errors
/// If a database cannot be asked.
pub async fn describe(from: &mut Database, to: &mut Database, name: &str) -> Result<String> {
    Ok(locate(from, to, name).await?.text)
}

/// Where a stream stands.
struct Stand {
    text: String,
    /// The subscription, if the text does not say why.
    unexplained: Option<i64>,
}

impl From<String> for Stand {
    fn from(text: String) -> Self {
        Self { text, unexplained: None }
    }
}

async fn locate(from: &mut Database, to: &mut Database, name: &str) -> Result<Stand> {
    let Some(at) = query_as::<_, Position>(POSITION).bind(name).fetch_optional(&mut from.connection).await? else {
        return Ok(format!("{name}: the {} has no slot of this name", from.side).into());
    };
    let Some(failed) = query_as::<_, Failures>(FAILURES).bind(name).fetch_optional(&mut to.connection).await? else {
        return Ok(format!("{name}: the {} has no subscription of this name", to.side).into());
    };
    let mut text = format!(
        "{name}: the stream stands at {}, {} behind; {} failures to apply and {} to copy",
        at.position,
        show(at.behind),
        failed.apply,
        failed.sync
    );
    if !failed.copying.is_empty() {
        text += &format!("; not copied yet: {}", failed.copying.join(", "));
    }
    if slot::is_for_standbys(from, name).await?
        && let Some(awaited) = standbys::awaited(from).await?
    {
        return Ok(format!("{text}; {awaited}").into());
    }
    let blockers: Vec<String> = query_scalar(BLOCKERS).bind(name).fetch_all(&mut to.connection).await?;
    if !blockers.is_empty() {
        return Ok(format!("{text}; its worker waits for a lock. On the {}, {}", to.side, blockers.join("; ")).into());
    }
    Ok(Stand { text, unexplained: Some(failed.subscription) })
}

#[derive(FromRow)]
struct Position {
    position: String,
    behind: i64,
}

#[derive(FromRow)]
struct Failures {
    subscription: i64,
    apply: i64,
    sync: i64,
    copying: Vec<String>,
}

/// The newest error of the stream's workers in the server's log. Returns `None` if the server writes no log file, or if it
/// may not be read. Lines with the values of rows are left out.
async fn read_log(to: &mut PgConnection, subscription: i64, name: &str) -> Option<String> {
    let log: String = query_scalar(END_OF_LOG).bind(LOG).fetch_optional(to).await.ok()??;
    find_error(&log, subscription, name)
}

/// Finds the error before the newest line that names the stream.
fn find_error(log: &str, subscription: i64, name: &str) -> Option<String> {
    let of_stream = [format!("\"pg_{subscription}\""), format!("\"pg_{subscription}_"), format!("subscription \"{name}\"")];
    let lines: Vec<&str> = log.lines().collect();
    let is_error = |line: &&str| line.contains("ERROR:");
    let near = lines.iter().rposition(|line| {
        of_stream.iter().any(|text| line.contains(text.as_str())) && (line.contains("CONTEXT:") || is_error(line))
    })?;
    let error = lines[..=near].iter().rev().take(5).find(|line| is_error(line))?;
    let error = error.split_once("ERROR:")?.1.trim();
    let table = lines[near].split_once("replication target relation \"");
    let table = table.and_then(|(_, rest)| rest.split('"').next()).map(|table| format!(" (in {table})"));
    Some(format!("{error}{}", table.unwrap_or_default()))
}

/// The tables of the next transaction in a slot, as its relation messages name them: `R`, an oid, the schema, the name.
async fn list_next(from: &mut PgConnection, name: &str, publication: &str) -> Result<Vec<String>> {
    execute(from, "set statement_timeout = '10s'").await?;
    let mut tables = Vec::new();
    for _ in 0..TRIES {
        // A slot that is in use cannot be read, and neither can one by a role without REPLICATION.
        match query_scalar::<_, Vec<u8>>(NEXT).bind(name).bind(publication).fetch_all(&mut *from).await {
            Ok(messages) => {
                tables = messages.iter().filter_map(|message| name_of(message)).collect();
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    execute(from, "set statement_timeout = 0").await?;
    Ok(tables)
}

fn name_of(message: &[u8]) -> Option<String> {
    let mut words = message.get(5..)?.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (schema, name) = (words.next()?, words.next()?);
    // The marker is splitctl's own.
    (schema != "splitctl").then(|| format!("{schema}.{name}"))
}

const POSITION: &str = r"
    select
        coalesce(confirmed_flush_lsn, restart_lsn)::text as position,
        pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(confirmed_flush_lsn, restart_lsn))::int8 as behind
    from pg_replication_slots
    where slot_name = $1
      and restart_lsn is not null";

const FAILURES: &str = r"
    select
        s.oid::int8 as subscription,
        coalesce(t.apply_error_count, 0)::int8 as apply,
        coalesce(t.sync_error_count, 0)::int8 as sync,
        array(
            select r.srrelid::regclass::text
            from pg_subscription_rel r
            where r.srsubid = s.oid
              and r.srsubstate <> 'r'
            order by 1
        ) as copying
    from pg_subscription s
    left join pg_stat_subscription_stats t on t.subid = s.oid
    where s.subname = $1
      and s.subdbid = (select oid from pg_database where datname = current_database())";

/// A prepared transaction has no process of its own, and counts as process 0. A role without `pg_monitor` is not shown what
/// sessions of others do.
const BLOCKERS: &str = r"
    select distinct case
        when b.pid = 0 then 'a prepared transaction is in its way: see pg_prepared_xacts'
        else format(
            'process %s (%s, role %s%s%s) is in its way',
            b.pid,
            coalesce(nullif(a.application_name, ''), a.backend_type, '-'),
            coalesce(a.usename, '-'),
            ', ' || a.state,
            ' for ' || (clock_timestamp() - coalesce(a.xact_start, a.backend_start))::interval(0)
        )
    end
    from pg_stat_subscription t
    cross join unnest(pg_blocking_pids(t.pid)) b (pid)
    left join pg_stat_activity a on a.pid = b.pid
    where t.subname = $1
    order by 1";

/// Only a role that may execute these functions gets an answer.
const END_OF_LOG: &str = r"
    select pg_read_file(f.name, greatest(0, s.size - $1), $1, true)
    from (select pg_current_logfile() as name) f
    cross join lateral pg_stat_file(f.name, true) s
    where f.name is not null";

/// Up to the end of the first transaction.
const NEXT: &str = r"
    select data
    from pg_logical_slot_peek_binary_changes($1, null, 1, 'proto_version', '1', 'publication_names', $2)
    where get_byte(data, 0) = 82
    limit 20";

#[cfg(test)]
mod tests {
    use super::{find_error, name_of};

    const LOG: &str = r#"
2026-11-28 16:00:00 UTC [7] ERROR:  something else
2026-11-28 16:00:01 UTC [8] ERROR:  duplicate key value violates unique constraint "notes_pkey"
2026-11-28 16:00:01 UTC [8] DETAIL:  Key (email)=(jane@example.org) already exists.
2026-11-28 16:00:01 UTC [8] CONTEXT:  processing remote data for {origin} "pg_16400" during message type "INSERT" for {table}
2026-11-28 16:00:01 UTC [1] LOG:  background worker "logical replication worker" (PID 8) exited with exit code 1
2026-11-28 16:00:02 UTC [9] ERROR:  a later one of somebody else"#;

    #[test]
    fn the_error_of_the_stream_is_found_without_the_values_of_rows() {
        let log = LOG.replace("{origin}", "replication origin");
        let log = log.replace("{table}", "replication target relation \"public.notes\" in transaction 742");
        let said = find_error(&log, 16400, "splitctl_1").expect("it is there");
        assert_eq!(said, "duplicate key value violates unique constraint \"notes_pkey\" (in public.notes)");
        assert_eq!(find_error(&log, 1640, "splitctl_1"), None);
    }

    #[test]
    fn a_relation_message_names_its_table() {
        assert_eq!(name_of(b"R\0\0\x40\0public\0notes\0d\0\x01").as_deref(), Some("public.notes"));
        assert_eq!(name_of(b"R\0\0\x40\0splitctl\0marker_shop\0d\0\x01"), None);
        assert_eq!(name_of(b"R"), None);
    }
}
