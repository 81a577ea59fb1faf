//! What clients were answered during one fault.

use std::time::Duration;

use dev::http::{Answer, Unanswered};

/// How many wrong answers, and how many refusals, are shown.
const SHOWN: usize = 3;

/// Answers, counted.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    /// Answers 503 with `Retry-After`.
    pub refused: u64,
    /// Those that only read.
    pub refused_reads: u64,
    /// What the first of them say.
    pub refusals: Vec<String>,
    /// Requests whose connection ended without an answer.
    pub unanswered: u64,
    /// The first answers that are neither what was asked for nor a refusal, and how many there were.
    pub wrong: (u64, Vec<String>),
    /// The longest time to an answer.
    pub worst: Duration,
}

impl Tally {
    /// Counts one answer. `is_done` says that it is what was asked for, `reads` that the request only reads.
    pub fn note(&mut self, answer: &Result<Answer, Unanswered>, is_done: bool, reads: bool, took: Duration) {
        self.requests += 1;
        self.worst = self.worst.max(took);
        match answer {
            _ if is_done => {}
            Ok(answer) if answer.status == 503 && answer.headers.contains_key("retry-after") => {
                self.refused += 1;
                self.refused_reads += u64::from(reads);
                if self.refusals.len() < SHOWN {
                    self.refusals.push(answer.text());
                }
            }
            Ok(answer) => {
                self.wrong.0 += 1;
                self.wrong.1.push(format!("{}: {}", answer.status, answer.text()));
                self.wrong.1.truncate(SHOWN);
            }
            Err(_) => self.unanswered += 1,
        }
    }

    /// Adds what others have counted.
    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.refused_reads += other.refused_reads;
        self.refusals.extend(other.refusals);
        self.refusals.truncate(SHOWN);
        self.unanswered += other.unanswered;
        self.wrong.0 += other.wrong.0;
        self.wrong.1.extend(other.wrong.1);
        self.wrong.1.truncate(SHOWN);
        self.worst = self.worst.max(other.worst);
    }
}
