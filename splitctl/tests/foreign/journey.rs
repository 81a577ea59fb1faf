//! The way of a schema out and back, and what must hold on it.

use serde_json::Value;

use super::application::{Application, Load};
use super::fixture::{Fixture, execute, strings};

/// A schema, and the application that uses it.
pub struct Foreign {
    /// The owner in the manifest.
    pub owner: &'static str,
    /// The role of the application.
    pub role: &'static str,
    /// The couplings that the audit finds, in order of the alphabet.
    pub crosses: &'static [&'static str],
    /// Statements of the application, with an empty line between two; `{n}` is another number each time.
    pub work: &'static str,
    /// What the closed side refuses.
    pub refused: &'static [&'static str],
    /// Lists the numbers that the load has stored.
    pub stored: &'static str,
    /// Lists what contradicts itself, for an operator.
    pub broken: &'static str,
}

/// How the move ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Complete,
    Abort,
}

/// A schema on its way.
pub struct Journey<'a> {
    foreign: &'a Foreign,
    fixture: &'a Fixture,
    application: &'a Application,
    /// What must also hold on the side where the tables live.
    check: Box<dyn Fn(&str) + 'a>,
    worked: usize,
}

/// Creates the roles with a password on every cluster.
pub fn create_roles(fixture: &Fixture, roles: &str) {
    for cluster in &fixture.clusters {
        execute(&cluster.url("postgres"), &roles.replace("{password}", cluster.password()));
    }
}

impl<'a> Journey<'a> {
    pub fn new(foreign: &'a Foreign, fixture: &'a Fixture, application: &'a Application) -> Self {
        Self { foreign, fixture, application, check: Box::new(|_| ()), worked: 0 }
    }

    /// Adds a check of the side where the tables live.
    pub fn with_checks(self, check: impl Fn(&str) + 'a) -> Self {
        Self { check: Box::new(check), ..self }
    }

    /// Out, back, out again, and to the end, while the load runs.
    pub fn goes(mut self, load: Load, end: End) {
        let Self { foreign, fixture, .. } = self;
        let before = [&fixture.source, &fixture.target].map(|url| fixture.definitions(url));
        self.works("source");
        self.is_audited();
        fixture.done(&["plan", foreign.owner]);
        fixture.assert_as(&before, "after the plan");
        load.goes_on();
        self.step("copy");
        self.step("verify");
        load.goes_on();
        self.goes_out(&load);
        self.goes_back(&load);
        self.goes_out(&load);
        if end == End::Abort {
            self.goes_back(&load);
        }
        let acknowledged = load.stop();
        self.is_complete(acknowledged);
        self.step("verify");
        match end {
            End::Complete => self.step("complete"),
            End::Abort => self.step("abort"),
        }
        fixture.assert_clean();
        match end {
            End::Complete => {
                self.works("target");
                // Everything has moved, so the target is what the source was.
                let now = fixture.definitions(&fixture.target);
                assert_eq!(without_database(&now), without_database(&before[0]));
            }
            End::Abort => {
                fixture.assert_as(&before, "after the abort");
                self.works("source");
            }
        }
        self.is_complete(acknowledged);
    }

    fn is_audited(&self) {
        let output = self.fixture.command(&["audit", "--format", "json"]).output().expect("it runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a document");
        let findings = report["findings"].as_array().expect("findings").iter();
        let errors = findings.filter(|finding| finding["severity"] == "error");
        let mut crosses: Vec<&str> = errors.map(|finding| finding["id"].as_str().expect("an id")).collect();
        crosses.sort_unstable();
        assert_eq!(crosses, self.foreign.crosses);
        assert_eq!(output.status.code(), Some(i32::from(!crosses.is_empty())));
    }

    fn goes_out(&mut self, load: &Load) {
        self.step("detach");
        load.goes_on();
        self.switches("cutover");
        self.works("target");
        self.application.is_refused("source", self.foreign.refused);
        load.goes_on();
        self.step("verify");
    }

    fn goes_back(&mut self, load: &Load) {
        self.switches("rollback");
        self.works("source");
        self.application.is_refused("target", self.foreign.refused);
        load.goes_on();
        self.step("verify");
    }

    fn step(&self, step: &str) {
        println!("{}", self.fixture.done(&[step, self.foreign.owner]));
    }

    /// Writers may wait long, because many tests share the machine.
    fn switches(&self, step: &str) {
        let hook = self.application.after_switch();
        let said = self.fixture.done(&[step, self.foreign.owner, "--max-pause", "30s", "--after-switch", &hook]);
        assert!(!said.contains("switched:"), "{step}: {said}");
    }

    fn works(&mut self, side: &str) {
        assert_eq!(self.application.side(), side);
        self.worked += 1;
        self.application.works(&self.foreign.work.replace("{n}", &self.worked.to_string()));
        (self.check)(side);
        self.is_sound();
    }

    /// The superuser's URL where the tables live.
    fn home(&self) -> &str {
        if self.application.side() == "target" { &self.fixture.target } else { &self.fixture.source }
    }

    fn is_sound(&self) {
        assert_eq!(strings(self.home(), self.foreign.broken), [""; 0], "on the {}", self.application.side());
    }

    /// Every acknowledged write is there once, and no other.
    fn is_complete(&self, acknowledged: usize) {
        let mut stored = strings(self.home(), self.foreign.stored);
        stored.sort();
        let mut expected: Vec<String> = (0..acknowledged).map(|number| number.to_string()).collect();
        expected.sort();
        assert_eq!(stored, expected, "on the {}", self.application.side());
        self.is_sound();
    }
}

/// The lines of a dump that do not name the database itself.
fn without_database(definitions: &[String]) -> Vec<&str> {
    let of_database = |line: &&str| line.contains("DATABASE") || line.starts_with("\\connect");
    definitions.iter().map(String::as_str).filter(|line| !of_database(line)).collect()
}
