//! What became of each test in a machine, from the lines of its console.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::skips;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// It said why it cannot run here, and that is a known reason.
    Skipped,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// Its module, with the program: `kernel::record`.
    pub suite: String,
    pub name: String,
    pub outcome: Outcome,
    pub seconds: f64,
    /// Why it was skipped, or why that is not accepted, or what became of a first try.
    pub reason: Option<String>,
}

impl Test {
    fn to_json(&self) -> Value {
        json!({
            "suite": self.suite, "test": self.name, "outcome": self.outcome.as_str(),
            "seconds": self.seconds, "reason": self.reason,
        })
    }

    /// What `to_json` has written.
    fn from_json(test: &Value) -> Option<Self> {
        let outcomes = [Outcome::Passed, Outcome::Failed, Outcome::Skipped];
        Some(Self {
            suite: test["suite"].as_str()?.to_owned(),
            name: test["test"].as_str()?.to_owned(),
            outcome: outcomes.into_iter().find(|outcome| test["outcome"] == outcome.as_str())?,
            seconds: test["seconds"].as_f64()?,
            reason: test["reason"].as_str().map(str::to_owned),
        })
    }
}

/// What a machine has said so far.
#[derive(Debug, Default)]
pub struct Console {
    /// Name in the table of kernels.
    kernel: &'static str,
    /// `uname -r`, `uname -m` and the page size.
    pub release: String,
    pub machine: String,
    pub page_size: String,
    pub tests: Vec<Test>,
    /// Tries that have ended: the last of them is the last test.
    pub tries: usize,
    /// Tests that were begun and did not end.
    running: Option<(String, String)>,
    skipped: Option<String>,
    /// The machine came to its own end.
    pub complete: bool,
    /// What is wrong with the machine itself.
    pub broken: Vec<String>,
}

impl Console {
    pub fn new(kernel: &'static str) -> Self {
        Self { kernel, ..Self::default() }
    }

    /// Takes one line; whether a person wants to see it.
    pub fn line(&mut self, line: &str) -> bool {
        let Some(report) = line.strip_prefix("@@ ") else {
            if let Some(reason) = line.strip_prefix("SKIPPED: ") {
                self.skipped.get_or_insert_with(|| reason.to_owned());
            }
            if line.contains("Kernel panic") || line.contains("Oops") || line.contains("BUG:") {
                self.broken.push(line.to_owned());
            }
            return true;
        };
        let words: Vec<&str> = report.split_whitespace().collect();
        match words[..] {
            ["release", release, machine, page_size] => {
                (self.release, self.machine) = (release.to_owned(), machine.to_owned());
                page_size.clone_into(&mut self.page_size);
            }
            ["start", suite, test] => {
                self.running = Some((suite.to_owned(), test.to_owned()));
                self.skipped = None;
            }
            ["end", suite, test, status, start, end] => self.end(suite, test, status, start, end),
            // `doctor` exits with 1 where a hook is missing; what it says is compared with the tests.
            ["doctor", "0" | "1"] => {}
            ["doctor", status] => self.broken.push(format!("spark-trace doctor: exit code {status}")),
            ["broken", ..] => self.broken.push(report.trim_start_matches("broken ").to_owned()),
            ["done"] => self.complete = true,
            _ => self.broken.push(format!("not understood: {line}")),
        }
        false
    }

    fn end(&mut self, suite: &str, test: &str, status: &str, start: &str, end: &str) {
        self.running = None;
        self.tries += 1;
        let seconds = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        let (outcome, reason) = match (status, self.skipped.take()) {
            ("0", None) => (Outcome::Passed, None),
            ("0", Some(reason)) => match skips::allows(self.kernel, suite, test, &reason) {
                true => (Outcome::Skipped, Some(reason)),
                false => (Outcome::Failed, Some(format!("may not be skipped: {reason}"))),
            },
            ("137", _) => (Outcome::Failed, Some("took too long and was killed".to_owned())),
            (status, _) => (Outcome::Failed, Some(format!("exit code {status}"))),
        };
        let seconds = (seconds(end) - seconds(start)).max(0.0);
        // A second try takes the place of the first.
        let before = self.tests.pop_if(|last| last.suite == suite && last.name == test);
        let reason = match (before.and_then(|first| first.reason), outcome) {
            (Some(first), Outcome::Passed) => Some(format!("at the second try, {first} at the first")),
            _ => reason,
        };
        self.tests.push(Test { suite: suite.to_owned(), name: test.to_owned(), outcome, seconds, reason });
    }

    /// Takes back skips whose reason is a hook that the machine's own doctor calls well.
    pub fn check_skips(&mut self, doctor: &Value) {
        let verdicts = verdicts(doctor);
        for test in self.tests.iter_mut().filter(|test| test.outcome == Outcome::Skipped) {
            let reason = test.reason.clone().unwrap_or_default();
            let hook = reason.split(':').next().unwrap_or_default();
            if verdicts.get(hook).is_some_and(|verdict| verdict == "ok") {
                test.outcome = Outcome::Failed;
                test.reason = Some(format!("may not be skipped, doctor attaches {hook}: {reason}"));
            }
        }
    }

    /// The machine's end, from outside: what was running has failed.
    pub fn ended(&mut self, error: Option<String>) {
        if let Some((suite, name)) = self.running.take() {
            let reason = Some("the machine ended while it ran".to_owned());
            self.tests.push(Test { suite, name, outcome: Outcome::Failed, seconds: 0.0, reason });
        }
        self.broken.extend(error);
        if !self.complete && self.broken.is_empty() {
            self.broken.push("the machine stopped before its end".to_owned());
        }
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests.iter().filter(|test| test.outcome == outcome).count()
    }

    /// All tests ended well, and there were some.
    pub fn is_good(&self) -> bool {
        self.complete && self.broken.is_empty() && !self.tests.is_empty() && self.count(Outcome::Failed) == 0
    }

    /// What `to_json` has written of how it went.
    pub fn from_json(machine: &Value) -> Self {
        let list = |field: &str| machine[field].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            complete: machine["complete"] == true,
            broken: list("broken").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            tests: list("tests").iter().filter_map(Test::from_json).collect(),
            ..Self::default()
        }
    }

    pub fn to_json(&self) -> Value {
        let tests = self.tests.iter().map(Test::to_json);
        json!({
            "release": self.release, "machine": self.machine, "page_size": self.page_size,
            "complete": self.complete, "broken": self.broken, "tests": tests.collect::<Vec<_>>(),
        })
    }
}

/// Verdicts by hook in doctor's report.
pub fn verdicts(doctor: &Value) -> BTreeMap<String, String> {
    let hooks = doctor["hooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |hook: &Value| Some((hook["name"].as_str()?.to_owned(), hook["verdict"].as_str()?.to_owned()));
    hooks.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::new("6.1-amd64");
        for line in lines {
            console.line(line);
        }
        console
    }

    #[test]
    fn each_test_has_an_outcome() {
        let mut console = console(&[
            "@@ release 6.12.9 aarch64 16384",
            "@@ start kernel::record one",
            "test one ... ok",
            "@@ end kernel::record one 0 1.50 3.00",
            "@@ start kernel::record two",
            "@@ end kernel::record two 101 3.00 4.00",
            "@@ start kernel::record three",
        ]);
        assert_eq!((&console.release[..], &console.page_size[..]), ("6.12.9", "16384"));
        console.ended(None);
        assert_eq!((console.count(Outcome::Passed), console.count(Outcome::Failed)), (1, 2));
        assert!((console.tests[0].seconds - 1.5).abs() < 1e-9);
        assert!(console.tests[2].reason.as_ref().unwrap().contains("ended while it ran"));
        assert!(!console.is_good());
    }

    #[test]
    fn what_passes_at_the_second_try_says_so() {
        let lines = ["@@ start a b", "@@ end a b 101 1 2", "@@ start a b", "@@ end a b 0 2 3", "@@ done"];
        let passed = console(&lines);
        assert_eq!((passed.tests.len(), passed.tests[0].outcome, passed.tries), (1, Outcome::Passed, 2));
        assert_eq!(passed.tests[0].reason.as_deref(), Some("at the second try, exit code 101 at the first"));
        assert!(passed.is_good());
        let failed = console(&[lines[0], lines[1], lines[0], lines[1], lines[4]]);
        assert_eq!((failed.tests.len(), failed.tests[0].outcome), (1, Outcome::Failed));
    }

    #[test]
    fn a_skip_needs_a_row_and_doctors_consent() {
        let skipped = |suite: &str, reason: &str| {
            console(&[
                &format!("@@ start {suite} x"),
                &format!("SKIPPED: {reason}"),
                &format!("@@ end {suite} x 0 1 2"),
                "@@ done",
            ])
        };
        let (suite, hook) = (skips::MAY_SKIP[0].suite, skips::MAY_SKIP[0].reason);
        let mut allowed = skipped(suite, &format!("{hook}: unsupported: no"));
        assert_eq!(allowed.tests[0].outcome, Outcome::Skipped);
        assert!(allowed.is_good());
        allowed.check_skips(&json!({"hooks": [{"name": hook, "verdict": "ok"}]}));
        assert_eq!(allowed.tests[0].outcome, Outcome::Failed);
        assert!(!skipped("kernel::no_such_suite", &format!("{hook}: unsupported: no")).is_good());
    }

    #[test]
    fn a_broken_machine_is_no_success() {
        for line in ["[ 1.0] Kernel panic - not syncing: x", "@@ broken cannot load nvme.ko", "@@ doctor 70"]
        {
            let console = console(&["@@ start a b", "@@ end a b 0 1 2", line, "@@ done"]);
            assert!(!console.is_good(), "{line}");
        }
        assert!(!console(&["@@ done"]).is_good(), "no tests at all");
    }
}
