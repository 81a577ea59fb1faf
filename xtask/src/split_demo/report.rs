//! What is told at the end.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::load::{Sample, Seen};
use super::oracle::Verdict;

/// Length of a part of the timeline.
pub const SLICE: Duration = Duration::from_millis(100);

/// A step, and when it began.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// Since the load began.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// Its command.
    pub step: String,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// A part of the timeline.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Slice {
    /// Requests per second that were answered in it.
    pub rate: f64,
    /// Median latency in milliseconds of those that were due in it.
    pub p50: f64,
    /// The longest.
    pub worst: f64,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whose tables moved.
    pub owner: String,
    /// Requests answered at the steady pace.
    pub requests: usize,
    /// Requests that failed.
    pub failed: u64,
    /// How the first of them did.
    pub faults: Vec<String>,
    /// Of the whole time.
    pub p50_ms: f64,
    /// Of the whole time.
    pub p99_ms: f64,
    /// The longest that anybody waited.
    pub worst_ms: f64,
    /// The pause of each switch in milliseconds, as splitctl measured it, sorted.
    pub pauses_ms: Vec<f64>,
    /// Each pause, broken down.
    pub pauses: Vec<Value>,
    /// For each switch, the longest that a write waited which was due from its command on and before the next one.
    pub felt_ms: Vec<f64>,
    /// Rows compared a second, each time.
    pub verified_per_second: Vec<f64>,
    /// The oracle's.
    pub verdict: Verdict,
    /// The steps.
    pub marks: Vec<Mark>,
    /// Tenths of seconds.
    pub timeline: Vec<Slice>,
}

impl Report {
    /// Sums up.
    pub fn new(owner: &str, seen: Seen, marks: Vec<Mark>, pauses: Vec<Value>, rates: Vec<f64>, verdict: Verdict) -> Self {
        let felt_ms = felt(&seen.samples, &marks);
        let begun = seen.samples.first().map_or(Duration::ZERO, |sample| sample.at);
        let marks = marks.into_iter().map(|mark| Mark { at: mark.at.saturating_sub(begun), ..mark }).collect();
        let mut latencies: Vec<f64> = seen.samples.iter().map(|sample| milliseconds(sample.latency)).collect();
        latencies.sort_by(f64::total_cmp);
        let mut totals: Vec<f64> = pauses.iter().filter_map(|pause| pause["total"].as_f64()).collect();
        totals.sort_by(f64::total_cmp);
        Self {
            owner: owner.to_owned(),
            requests: seen.samples.len(),
            failed: seen.failed,
            faults: seen.faults,
            p50_ms: part(&latencies, 0.5),
            p99_ms: part(&latencies, 0.99),
            worst_ms: part(&latencies, 1.0),
            pauses_ms: totals,
            pauses,
            felt_ms,
            verified_per_second: rates,
            verdict,
            marks,
            timeline: timeline(&seen.samples, begun),
        }
    }

    /// Whether nothing failed, and nothing was lost, doubled, invented or stale.
    pub fn is_sound(&self) -> bool {
        let Verdict { lost, doubled, invented, stale, .. } = self.verdict;
        self.failed + lost + doubled + invented + stale == 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let Verdict { acknowledged, lost, doubled, invented, stale } = &self.verdict;
        let slowest = self.verified_per_second.iter().copied().fold(f64::INFINITY, f64::min);
        let mut lines = vec![
            format!(
                "{} requests at a steady pace, {} failed; {acknowledged} writes acknowledged, {lost} lost, {doubled} doubled, {invented} invented; {stale} rows of replicas stale",
                self.requests, self.failed
            ),
            format!(
                "latency, from when a request was due: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
                self.p50_ms, self.p99_ms, self.worst_ms
            ),
            format!(
                "{} switches of {}: writes paused p50 {:.1} ms, worst {:.1} ms; rows compared: {slowest:.0}/s at least",
                self.pauses_ms.len(),
                self.owner,
                part(&self.pauses_ms, 0.5),
                part(&self.pauses_ms, 1.0),
            ),
        ];
        let felt: Vec<String> = self.felt_ms.iter().map(|felt| format!("{felt:.0}")).collect();
        lines.push(format!("the slowest write around each switch, in ms: {}", felt.join(", ")));
        lines.extend(self.faults.iter().map(|fault| format!("failed: {fault}")));
        lines.join("\n")
    }
}

fn felt(samples: &[Sample], marks: &[Mark]) -> Vec<f64> {
    let ends = marks.iter().skip(1).map(|mark| mark.at).chain([Duration::MAX]);
    let switches = marks.iter().zip(ends).filter(|(mark, _)| ["cutover", "rollback"].contains(&&*mark.step));
    switches
        .map(|(mark, end)| {
            let writes = samples.iter().filter(|sample| sample.write && (mark.at..end).contains(&sample.at));
            writes.map(|sample| milliseconds(sample.latency)).fold(0.0, f64::max)
        })
        .collect()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A quantile of sorted values.
fn part(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

fn timeline(samples: &[Sample], begun: Duration) -> Vec<Slice> {
    let number = |at: Duration| (at.saturating_sub(begun).as_nanos() / SLICE.as_nanos()) as usize;
    let length = samples.iter().map(|sample| number(sample.at) + 1).max().unwrap_or_default();
    let (mut due, mut answered) = (vec![Vec::new(); length], vec![0_u32; length]);
    for sample in samples {
        due[number(sample.at)].push(milliseconds(sample.latency));
        // What is answered after the last one was due is beyond the picture.
        if let Some(count) = answered.get_mut(number(sample.at + sample.latency)) {
            *count += 1;
        }
    }
    let sum = |(mut latencies, answered): (Vec<f64>, u32)| {
        latencies.sort_by(f64::total_cmp);
        Slice { rate: f64::from(answered) / SLICE.as_secs_f64(), p50: part(&latencies, 0.5), worst: part(&latencies, 1.0) }
    };
    due.into_iter().zip(answered).map(sum).collect()
}
