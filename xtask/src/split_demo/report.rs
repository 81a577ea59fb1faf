//! The report.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::load::{Sample, Seen};
use super::oracle::Verdict;

/// The length of a slice of the timeline.
pub const SLICE: Duration = Duration::from_millis(100);

/// The start of a step.
#[derive(Debug, Clone, Serialize)]
pub struct Mark {
    /// Time since the load began.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// The name of its command.
    pub step: String,
    /// Time since the load began, of the switch that the step made: its command begins with checks.
    #[serde(serialize_with = "maybe_seconds")]
    pub switched: Option<Duration>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// A switch, as clients saw it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Felt {
    /// splitctl's pause in milliseconds.
    pub pause: f64,
    /// The longest latency in milliseconds of a request that was due in the pause or soon after it.
    pub longest: f64,
}

/// How long after a switch a request may still wait for those that waited for it. Before the pause, it is the inaccuracy of
/// the mark.
const AROUND: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(250)];

/// A slice of the timeline.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Slice {
    /// Answered requests per second.
    pub rate: f64,
    /// Median latency in milliseconds of the requests that were due in it.
    pub p50: f64,
    /// The longest of these latencies.
    pub worst: f64,
}

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The owner whose tables moved.
    pub owner: String,
    /// Answered requests at the steady pace.
    pub requests: usize,
    pub failed: u64,
    /// The messages of the first failures.
    pub faults: Vec<String>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// The longest latency.
    pub worst_ms: f64,
    /// splitctl's pauses in milliseconds, sorted.
    pub pauses_ms: Vec<f64>,
    /// The parts of each pause.
    pub pauses: Vec<Value>,
    /// What clients saw of each switch.
    pub felt: Vec<Felt>,
    /// The longest latency in milliseconds in each stretch as long as those of `felt` and without a switch, sorted.
    pub calm_ms: Vec<f64>,
    /// Rows per second of each verification.
    pub verified_per_second: Vec<f64>,
    pub verdict: Verdict,
    pub marks: Vec<Mark>,
    /// In slices of [`SLICE`].
    pub timeline: Vec<Slice>,
}

impl Report {
    /// Computes the figures.
    pub fn new(owner: &str, seen: Seen, marks: Vec<Mark>, pauses: Vec<Value>, rates: Vec<f64>, verdict: Verdict) -> Self {
        let (felt, calm_ms) = (felt(&seen.samples, &marks, &pauses), calm(&seen.samples, &marks));
        let begun = seen.samples.first().map_or(Duration::ZERO, |sample| sample.at);
        let shift = |at: Duration| at.saturating_sub(begun);
        let marks =
            marks.into_iter().map(|mark| Mark { at: shift(mark.at), switched: mark.switched.map(shift), ..mark }).collect();
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
            felt,
            calm_ms,
            verified_per_second: rates,
            verdict,
            marks,
            timeline: timeline(&seen.samples, begun),
        }
    }

    /// Whether no request failed, and no write was lost, doubled, invented or stale.
    pub fn is_sound(&self) -> bool {
        let Verdict { lost, doubled, invented, stale, .. } = self.verdict;
        self.failed + lost + doubled + invented + stale == 0
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let Self { owner, requests, failed, p50_ms, p99_ms, worst_ms, pauses_ms, .. } = self;
        let Verdict { acknowledged, lost, doubled, invented, stale } = &self.verdict;
        let slowest = self.verified_per_second.iter().copied().fold(f64::INFINITY, f64::min);
        let felt = self.felt.iter().map(|Felt { pause, longest }| format!("{longest:.0} ({:+.0})", longest - pause));
        let felt: Vec<String> = felt.collect();
        let faults: String = self.faults.iter().map(|fault| format!("\nfailed: {fault}")).collect();
        format!(
            "{requests} requests at a steady pace, {failed} failed; {acknowledged} writes acknowledged, {lost} lost, \
             {doubled} doubled, {invented} invented; {stale} rows of replicas stale\n\
             latency, from the moment a request was due: p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, worst {worst_ms:.1} ms\n\
             {} switches of {owner}: writes paused p50 {:.1} ms, worst {:.1} ms; rows compared: {slowest:.0}/s at least\n\
             the longest wait of a client around each switch, in ms, and how much longer than the pause: {}\n\
             in as long a time without a switch: p50 {:.0} ms, p90 {:.0} ms, longest {:.0} ms{faults}",
            pauses_ms.len(),
            part(pauses_ms, 0.5),
            part(pauses_ms, 1.0),
            felt.join(", "),
            part(&self.calm_ms, 0.5),
            part(&self.calm_ms, 0.9),
            part(&self.calm_ms, 1.0),
        )
    }
}

fn felt(samples: &[Sample], marks: &[Mark], pauses: &[Value]) -> Vec<Felt> {
    let switches = marks.iter().filter_map(|mark| mark.switched).zip(pauses);
    switches
        .map(|(switched, pause)| {
            let pause = pause["total"].as_f64().unwrap_or_default();
            let begin = switched.saturating_sub(Duration::from_secs_f64(pause / 1e3) + AROUND[0]);
            let due = samples.iter().filter(|sample| (begin..switched + AROUND[1]).contains(&sample.at));
            Felt { pause, longest: due.map(|sample| milliseconds(sample.latency)).fold(0.0, f64::max) }
        })
        .collect()
}

/// The longest latency of each stretch of the run in which nothing was switched.
fn calm(samples: &[Sample], marks: &[Mark]) -> Vec<f64> {
    let length = AROUND[0] + AROUND[1];
    let number = |at: Duration| at.as_nanos() / length.as_nanos();
    let switched: Vec<u128> = marks.iter().filter_map(|mark| mark.switched).map(number).collect();
    // A switch reaches into the stretches before and after its own.
    let is_calm = |stretch: u128| switched.iter().all(|switched| switched.abs_diff(stretch) > 1);
    let mut longest = BTreeMap::<u128, f64>::new();
    for sample in samples.iter().filter(|sample| is_calm(number(sample.at))) {
        let longest = longest.entry(number(sample.at)).or_default();
        *longest = longest.max(milliseconds(sample.latency));
    }
    let mut longest: Vec<f64> = longest.into_values().collect();
    longest.sort_by(f64::total_cmp);
    longest
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
        // An answer after the last slice is not shown.
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
