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
    pub events: Vec<Events>,
    /// Kafka's own producer.
    pub peer: Option<Peer>,
}

/// How fast events travel from users to orders' replica.
#[derive(Debug, Serialize)]
pub struct Events {
    pub way: Way,
    /// From the answer to a change of a user until the replica has it: the median in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// How many events the relay takes to the broker, while nothing consumes.
    pub published_per_second: Option<f64>,
    /// How many events the consumer applies to the replica, while nothing publishes.
    pub consumed_per_second: f64,
    /// The most memory of the whole process of users.
    pub relay_peak_mib: u64,
    /// The most memory of the whole process of orders that consumed.
    pub consumer_peak_mib: u64,
    /// The size of a record.
    pub bytes: Option<u64>,
    /// The longest time until a change arrives after the consumer was killed while another process waited.
    pub takeover_seconds: f64,
}

/// `kafka-producer-perf-test` in the same run, with as many records of the same size.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// What the broker is.
    pub broker: &'static str,
    pub bytes: u64,
    pub produced_per_second: Option<f64>,
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
        self.add_events(&mut text, options);
        text + &format!(
            "\nBoth services, Postgres and the load share the machine; 32 connections; medians of {} rounds of {} s; \
             µs: CPU per request.\n",
            options.rounds, options.seconds,
        )
    }

    fn add_events(&self, text: &mut String, options: &Options) {
        *text += "| events by | in the replica after, p50 ms | p99 ms | published/s | of the producer's | consumed/s \
                  | relay MiB | consumer MiB | taken over after s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
        let peer = self.peer.as_ref().and_then(|peer| peer.produced_per_second);
        for events in &self.events {
            let published = events.published_per_second;
            let share = published.zip(peer).filter(|_| events.way == Way::ReplicaByKafka).map(|(own, peer)| own / peer);
            let show = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
            *text += &format!(
                "| {} | {:.1} | {:.1} | {} | {} | {:.0} | {} | {} | {:.1} |\n",
                events.way.name(),
                events.p50_ms,
                events.p99_ms,
                show(published.map(|rate| format!("{rate:.0}"))),
                show(share.map(|share| format!("{share:.2}"))),
                events.consumed_per_second,
                events.relay_peak_mib,
                events.consumer_peak_mib,
                events.takeover_seconds,
            );
        }
        if let Some(Peer { broker, bytes, produced_per_second }) = &self.peer {
            let rate = produced_per_second.map_or("was not run".to_owned(), |rate| format!("{rate:.0} records/s"));
            *text += &format!("| kafka-producer-perf-test | | | {rate} | 1 | | | | |\n\n");
            *text += &format!("Kafka: {broker}; a record has {bytes} bytes.");
        }
        *text += &format!(" {} events at once; the longest of three takeovers.\n", options.events);
    }
}
