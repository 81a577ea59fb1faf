//! What to expect of the real move. These are estimates, and each says how it was made.

use sqlx::{FromRow, PgConnection, query_as};

use super::report::{Expected, Report, shown};
use super::rows::Rows;
use crate::moving::Side;
use crate::names::Qualified;

/// What is read from the real source, before the rehearsal and after it.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Measured {
    /// Bytes of WAL since the server's first start.
    wal: i64,
    /// The server's clock, in seconds.
    at: f64,
    /// The size of what moves, with indexes.
    bytes: i64,
}

impl Measured {
    /// Reads it.
    pub async fn read(source: &mut PgConnection, moving: &[Qualified]) -> Result<Self, sqlx::Error> {
        let names: Vec<String> = moving.iter().map(Qualified::sql).collect();
        query_as(MEASURED).bind(names).fetch_one(source).await
    }
}

/// Estimates what the real move takes.
pub fn estimate(report: &Report, before: Measured, after: Measured) -> Vec<Expected> {
    let mut expected = Vec::new();
    let mut add = |what: &str, value: String, how: String| {
        expected.push(Expected { what: what.to_owned(), value, how });
    };
    let copying = scaled(report, "copy");
    for (what, step) in [("copy", "copy"), ("one comparison (verify)", "verify")] {
        if let Some((seconds, how)) = scaled(report, step) {
            add(what, format!("about {}", shown::seconds(seconds)), how);
        }
    }
    let longest = report.switches.iter().filter(|switch| switch.lives == Side::Target).map(|switch| switch.pause.total);
    if let Some(pause) = longest.reduce(f64::max) {
        let how = "the longest cutover here. The real one adds about ten round trips between the servers, and waits for \
                   your transactions that are open: --max-pause is its limit";
        add("writers wait", format!("about {}", shown::milliseconds(pause)), how.to_owned());
    }
    let (took, wal) = ((after.at - before.at).max(0.001), (after.wal - before.wal).max(0));
    if let Some((seconds, _)) = copying {
        let rate = wal as f64 / took;
        let how = format!(
            "the source wrote {} of WAL in the {} of the rehearsal, and its slot keeps what it writes while the copy runs",
            shown::bytes(wal),
            shown::seconds(took)
        );
        add("WAL held back in the source", format!("about {}", shown::bytes((rate * seconds) as i64)), how);
    }
    let how =
        "the size of the tables and materialised views in the source, with indexes. WAL and other databases are not in it";
    add("disk needed on the target", format!("about {}", shown::bytes(after.bytes)), how.to_owned());
    expected
}

/// The duration of a step for all rows.
fn scaled(report: &Report, name: &str) -> Option<(f64, String)> {
    let step = report.steps.iter().find(|step| step.name == name && step.said != "failed")?;
    let rows: i64 = report.tables.iter().map(|table| table.rows.max(0)).sum();
    let rehearsed: u64 = report.tables.iter().map(|table| table.rehearsed).sum();
    match report.rows.as_ref()?.rows {
        Rows::All => Some((step.seconds, format!("as long as here, with all {} rows", shown::count(rows)))),
        Rows::Sample if rehearsed > 0 => {
            let factor = (rows as f64 / rehearsed as f64).max(1.0);
            let how = format!(
                "{} here for {} rows, times {factor:.0} for {} rows. A sample is too small to be exact",
                shown::seconds(step.seconds),
                shown::count(rehearsed),
                shown::count(rows)
            );
            Some((step.seconds * factor, how))
        }
        _ => None,
    }
}

const MEASURED: &str = r"
    select
        pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8 as wal,
        extract(epoch from clock_timestamp())::float8 as at,
        coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 as bytes
    from pg_class c
    where c.oid in (
        select t.relid
        from unnest($1::text[]) n (name)
        cross join lateral pg_partition_tree(to_regclass(n.name)) t
        union
        select to_regclass(n.name) from unnest($1::text[]) n (name)
    )";
