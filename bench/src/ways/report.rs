//! The report of the ways.

use bench::Options;
use serde::Serialize;

use super::Way;
use crate::figures::Figures;
use crate::jobs::Job;

/// The figures of a way in a job.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub way: Way,
    pub job: Job,
    /// While users runs.
    #[serde(flatten)]
    pub figures: Figures,
    /// The part of the requests that succeeded while users was stopped, from 0 to 1.
    pub done_without_users: f64,
    /// The median of those requests in milliseconds.
    pub p50_ms_without_users: f64,
}

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    pub results: Vec<Entry>,
    pub staleness: Vec<Staleness>,
}

/// The time from the answer to a change of a user until orders' replica has it.
#[derive(Debug, Serialize)]
pub struct Staleness {
    /// `the feed` or `Kafka`.
    pub by: &'static str,
    /// The median in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

impl Report {
    /// A table with its legend.
    pub fn text(&self, options: &Options) -> String {
        let mut text = String::from(
            "| way | job | requests/s | p50 ms | p99 ms | orders µs | users µs | Postgres µs | done without users \
             | p50 ms then |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for Entry { way, job, figures, done_without_users, p50_ms_without_users } in &self.results {
            let cpu = |time: Option<f64>| time.map_or("–".to_owned(), |time| format!("{time:.0}"));
            text += &format!(
                "| {} | {} | {:.0} | {:.2} | {:.2} | {} | {} | {:.0} | {:.0} % | {:.2} |\n",
                way.name(),
                job.name(),
                figures.requests_per_second,
                figures.p50_ms,
                figures.p99_ms,
                cpu(figures.server_cpu_us),
                cpu(figures.neighbour_cpu_us),
                figures.postgres_cpu_us,
                done_without_users * 100.0,
                p50_ms_without_users,
            );
        }
        text.push('\n');
        for Staleness { by, p50_ms, p99_ms } in &self.staleness {
            text += &format!(
                "A change of a user is in the replica after {p50_ms:.1} ms (median), {p99_ms:.1} ms (99 of 100), by {by}.\n"
            );
        }
        text + &format!(
            "Both services, Postgres and the load share the machine; 32 connections; medians of {} rounds of {} s; \
             µs: CPU per request.\n",
            options.rounds, options.seconds,
        )
    }
}
