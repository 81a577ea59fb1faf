//! The way out and back between the two stand-ins, by the same code that makes the real move.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::{Access, Load, Tally};
use super::report::shown::count_of;
use super::report::{Report, Step, Switched};
use crate::database::{describe, sqlstate};
use crate::moving::plan::{self, Weight};
use crate::moving::verify::Options as Comparison;
use crate::moving::{Locking, Move, Side, budget, complete, copy, crossings, cutover, verify};
use crate::output::note;
use crate::proof::{self, Extent, Proof};

/// The way through the steps. It ends at the first step that fails.
pub struct Way<'a> {
    the_move: Move,
    report: &'a mut Report,
    access: Option<Access>,
    reach_outside: bool,
    /// The errors that a proof has found already: the way goes on, to find what comes behind them.
    proven: BTreeSet<String>,
}

/// A step has failed, and the report says why.
pub struct Stopped;

/// How often a proof is tried that does not get a lock.
const TRIES: u32 = 5;

const COPYING: copy::Options = copy::Options { jobs: 4, max_rate: None, budget: budget::DEFAULT, locking: LOCKING };
const LOCKING: Locking = Locking { lock_timeout: Duration::from_millis(200), lock_attempts: 20 };

impl<'a> Way<'a> {
    /// Begins with two connected stand-ins.
    pub fn new(the_move: Move, report: &'a mut Report, access: Option<Access>, reach_outside: bool) -> Self {
        Self { the_move, report, access, reach_outside, proven: BTreeSet::new() }
    }

    /// Goes out, back, and out again. Then it drops the old tables, as `complete` does.
    pub async fn go(mut self) -> Result<(), Stopped> {
        self.plan().await?;
        self.copy().await?;
        self.verify("verify").await?;
        self.detach("detach").await?;
        self.prove("proof before the cutover", Side::Target).await?;
        self.switch("cutover", Side::Target).await?;
        self.prove("proof of the target", Side::Target).await?;
        self.verify("verify on the target").await?;
        self.switch("rollback", Side::Source).await?;
        self.prove("proof of the source", Side::Source).await?;
        self.verify("verify on the source").await?;
        self.detach("detach again").await?;
        self.switch("cutover again", Side::Target).await?;
        self.prove("proof of the target again", Side::Target).await?;
        self.verify("verify again").await?;
        self.complete().await?;
        self.report.finished = true;
        Ok(())
    }

    /// Only what the plan of the real databases does not say is a finding.
    async fn plan(&mut self) -> Result<(), Stopped> {
        let begun = self.begin("plan");
        let planned = Box::pin(plan::make(&mut self.the_move)).await;
        let said = |plan: &plan::Plan| match plan.errors().count() {
            0 => "nothing stands against the copy".to_owned(),
            errors => format!("{} stand against the copy", count_of(errors, "error")),
        };
        let planned = self.end("plan", begun, planned, said)?;
        for finding in planned.errors() {
            let is_known = self.report.plan.iter().any(|known| known.text == finding.text);
            if !is_known {
                self.report.add(Weight::Error, "plan", format!("{}: {}", finding.check, finding.text));
            }
        }
        // The copy would repeat them.
        if planned.errors().next().is_none() { Ok(()) } else { Err(Stopped) }
    }

    async fn copy(&mut self) -> Result<(), Stopped> {
        let begun = self.begin("copy");
        let copied = Box::pin(copy::run(&mut self.the_move, COPYING)).await;
        self.end("copy", begun, copied, |copied| format!("{} tables, {} rows", copied.tables, copied.rows)).map(drop)
    }

    async fn verify(&mut self, name: &str) -> Result<(), Stopped> {
        let begun = self.begin(name);
        let options = Comparison { chunk: 20_000, patience: Duration::from_secs(60), jobs: 4, budget: budget::DEFAULT };
        let compared = Box::pin(verify::run(&mut self.the_move, &options)).await;
        let compared = self.end(name, begun, compared, |compared| format!("{} rows", compared.rows))?;
        if compared.is_equal() {
            return Ok(());
        }
        let rows =
            compared.differences.iter().map(|one| format!("{}: the row {} is {}", one.table, one.key, one.difference));
        let keys = compared.broken_keys.iter().map(|key| format!("{key}: rows break this foreign key"));
        for text in compared.definitions.iter().cloned().chain(rows).chain(keys) {
            self.report.add(Weight::Error, name, text);
        }
        self.report.add(Weight::Error, name, format!("{} rows differ", compared.different + compared.unproven));
        Err(Stopped)
    }

    async fn detach(&mut self, name: &str) -> Result<(), Stopped> {
        let begun = self.begin(name);
        let dropped = Box::pin(crossings::detach(&mut self.the_move, LOCKING)).await;
        let said = |dropped: &Vec<crossings::Crossing>| {
            let names: Vec<String> = dropped.iter().map(ToString::to_string).collect();
            if names.is_empty() { "nothing crosses".to_owned() } else { names.join(", ") }
        };
        self.end(name, begun, dropped, said).map(drop)
    }

    async fn switch(&mut self, name: &str, to: Side) -> Result<(), Stopped> {
        let begun = self.begin(name);
        let options = cutover::Options {
            locking: LOCKING,
            max_pause: Duration::from_secs(1),
            poolers: Vec::new(),
            before_switch: None,
            after_switch: None,
            budget: budget::DEFAULT,
        };
        let (load, left_out) = match &self.access {
            Some(access) => {
                let load = Load::start(&mut self.the_move, access, self.reach_outside).await;
                self.end_if_failed(name, begun, load)?
            }
            None => (Load::none(), Vec::new()),
        };
        let switched = Box::pin(cutover::run(&mut self.the_move, to, &options)).await;
        let tally = load.end().await;
        let tally = self.end_if_failed(name, begun, tally)?;
        let said = |switched: &cutover::Switched| match &switched.pause {
            Some(pause) => format!("writers waited {:.1} ms", pause.total),
            None => "switched".to_owned(),
        };
        let switched = self.end(name, begun, switched, said)?;
        for line in left_out {
            self.report.add(Weight::Note, "load", format!("{line}, so the load leaves it out"));
        }
        self.judge(name, to, &tally);
        if let Some(pause) = switched.pause {
            self.report.switches.push(Switched { lives: to, pause, load: tally });
        }
        if let Some(why) = switched.unfinished {
            self.report.add(Weight::Error, name, format!("switched, and a later step failed: {why}"));
            return Err(Stopped);
        }
        Ok(())
    }

    /// The application has to follow, and nothing of it may fail.
    fn judge(&mut self, name: &str, to: Side, tally: &Tally) {
        if let Some(failure) = &tally.failure {
            let text = format!("{failure}: the load met this while the switch was made, {} times in all", tally.failed);
            self.report.add(Weight::Error, name, text);
        } else if tally.tables > 0 && tally.followed == 0 {
            self.report.add(Weight::Error, name, format!("the load did not follow to the {to}"));
        }
    }

    /// What a proof finds does not end the rehearsal.
    async fn prove(&mut self, name: &str, on: Side) -> Result<(), Stopped> {
        let begun = self.begin(name);
        let extent = Extent::Writes { reach_outside: self.reach_outside };
        let mut proof = Box::pin(proof::prove(&mut self.the_move, on, extent)).await;
        for _ in 1..TRIES {
            // An autovacuum worker keeps its lock for a second.
            if !proof.as_ref().is_err_and(is_without_lock) {
                break;
            }
            proof = Box::pin(proof::prove(&mut self.the_move, on, extent)).await;
        }
        let said = |proof: &Proof| {
            let (checked, written, errors) = (proof.statements, proof.written.len(), proof.errors().count());
            let (checked, written) = (count_of(checked, "statement"), count_of(written, "write"));
            format!("{checked}, {written}, {}", count_of(errors, "error"))
        };
        let mut proof = self.end(name, begun, proof, said)?;
        proof.findings.retain(|finding| !self.proven.contains(&finding.subject));
        for finding in &proof.findings {
            self.report.add(finding.weight, name, finding.text.clone());
        }
        for finding in proof.errors() {
            self.proven.insert(finding.subject.clone());
            self.the_move.owner.accept.push(format!("proof: {}", finding.subject));
        }
        self.report.take_proof(proof, self.reach_outside);
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), Stopped> {
        let begun = self.begin("complete");
        let completed = Box::pin(complete::run(&mut self.the_move, LOCKING, complete::WayBack::Required)).await;
        let said = |done: &complete::Completed| format!("{} old tables are dropped", done.dropped.len());
        self.end("complete", begun, completed, said).map(drop)
    }

    fn begin(&self, name: &str) -> Instant {
        note(format_args!("rehearsal: {name}"));
        Instant::now()
    }

    fn end_if_failed<T>(&mut self, name: &str, begun: Instant, done: Result<T>) -> Result<T, Stopped> {
        match done {
            Ok(done) => Ok(done),
            Err(error) => self.end(name, begun, Err(error), |_| String::new()),
        }
    }

    fn end<T>(
        &mut self,
        name: &str,
        begun: Instant,
        done: Result<T>,
        said: impl FnOnce(&T) -> String,
    ) -> Result<T, Stopped> {
        let seconds = begun.elapsed().as_secs_f64();
        let said = match &done {
            Ok(done) => said(done),
            Err(error) => {
                self.report.add(Weight::Error, name, describe(error));
                "failed".to_owned()
            }
        };
        self.report.steps.push(Step { name: name.to_owned(), seconds, said });
        done.map_err(|_| Stopped)
    }
}

fn is_without_lock(error: &anyhow::Error) -> bool {
    let from_server = error.downcast_ref::<sqlx::Error>().and_then(sqlstate);
    from_server.as_deref() == Some("55P03")
}
