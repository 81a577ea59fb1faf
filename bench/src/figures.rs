//! The figures of a job.

use std::time::Duration;

use serde::Serialize;

use crate::cpu::Used;

/// What a contestant achieved.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// Requests, or pgbench's transactions, per second.
    pub requests_per_second: f64,
    /// Half of the requests took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// CPU of the server's process per request, in microseconds.
    pub server_cpu_us: Option<f64>,
    /// CPU of the service that the server asks per request, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour_cpu_us: Option<f64>,
    /// CPU of all of Postgres' processes per request, in microseconds.
    pub postgres_cpu_us: f64,
    /// The part of the CPUs that unrelated processes used, from 0 to 1. Above a few percent, the figures mean nothing.
    pub cpu_of_others: f64,
    /// Wrong answers.
    pub failures: u64,
}

impl Figures {
    /// Computes them from sorted latencies in microseconds and the CPU time of `requests` requests.
    pub fn new(rate: f64, latencies: &[u32], requests: usize, used: Used, failures: u64) -> Self {
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests as f64;
        let percentile = |percent: usize| f64::from(latencies[(latencies.len() - 1) * percent / 100]) / 1e3;
        Self {
            requests_per_second: rate,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            server_cpu_us: used.server.map(per_request),
            neighbour_cpu_us: used.neighbour.map(per_request),
            postgres_cpu_us: per_request(used.postgres),
            cpu_of_others: used.others,
            failures,
        }
    }

    /// The median of each figure, and the sum of the failures.
    pub fn medians(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let server: Option<Vec<f64>> = rounds.iter().map(|round| round.server_cpu_us).collect();
        let neighbour: Option<Vec<f64>> = rounds.iter().map(|round| round.neighbour_cpu_us).collect();
        Self {
            requests_per_second: of(|round| round.requests_per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
            server_cpu_us: server.map(median),
            neighbour_cpu_us: neighbour.map(median),
            postgres_cpu_us: of(|round| round.postgres_cpu_us),
            cpu_of_others: of(|round| round.cpu_of_others),
            failures: rounds.iter().map(|round| round.failures).sum(),
        }
    }
}

/// Of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
