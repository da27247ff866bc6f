//! The journal of a study: a line for each thing that happened, appended and written through before the next one.
//!
//! A crash loses at most the run under way. Reading it again gives the state, and what to do next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::plan::Plan;
use super::results::{Origin, Results, Run, SCHEMA, SCHEMA_VERSION};
use super::schedule::Slot;

pub const JOURNAL_SCHEMA: &str = "spark-trace/study-journal";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "entry")]
pub enum Entry {
    /// The first line.
    Study {
        schema: String,
        schema_version: u32,
        plan: Box<Plan>,
        slots: Vec<Slot>,
        machine: BTreeMap<String, String>,
    },
    /// A run begins; a journal that ends with it was cut off in the middle of that run.
    Begin {
        number: u32,
        attempt: u32,
        at_s: f64,
    },
    End {
        run: Box<Run>,
    },
    /// The figures of a run were read again from its recording and log.
    Reread {
        number: u32,
        attempt: u32,
        metrics: BTreeMap<String, f64>,
        sources: BTreeMap<String, f64>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        kv_sources: BTreeMap<String, f64>,
    },
    /// The runner came back and found a run begun and not ended.
    Lost {
        number: u32,
        attempt: u32,
        at_s: f64,
    },
}

/// What a journal says.
#[derive(Debug, Clone)]
pub struct State {
    pub plan: Plan,
    pub slots: Vec<Slot>,
    pub machine: BTreeMap<String, String>,
    /// All attempts that have ended or were lost, in their order.
    pub runs: Vec<Run>,
    /// Begun, and not ended.
    pub open: Option<(u32, u32)>,
    /// Bytes of whole lines; what is behind them was being written when it was cut off.
    pub whole: usize,
}

/// What is to be run next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next<'a> {
    pub slot: &'a Slot,
    pub attempt: u32,
}

#[derive(Debug, Error)]
pub enum JournalError {
    #[error("it does not begin with a study")]
    NoStudy,
    #[error("line {line}: {source}")]
    Line { line: usize, source: serde_json::Error },
    #[error("it was written by a newer spark-trace (version {0}); update spark-trace")]
    TooNew(u32),
    #[error("line {line}: the plan has no run {number}")]
    NoSuchRun { line: usize, number: u32 },
}

pub fn read(text: &str) -> Result<State, JournalError> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut state: Option<State> = None;
    for (index, line) in text[..whole].lines().enumerate() {
        let line_number = index + 1;
        let entry: Entry =
            serde_json::from_str(line).map_err(|source| JournalError::Line { line: line_number, source })?;
        match (&mut state, entry) {
            (None, Entry::Study { schema, schema_version, plan, slots, machine }) => {
                if schema != JOURNAL_SCHEMA {
                    return Err(JournalError::NoStudy);
                }
                if schema_version > SCHEMA_VERSION {
                    return Err(JournalError::TooNew(schema_version));
                }
                state = Some(State { plan: *plan, slots, machine, runs: vec![], open: None, whole });
            }
            (Some(state), entry) => {
                state.fold(entry).map_err(|number| JournalError::NoSuchRun { line: line_number, number })?
            }
            (None, _) => return Err(JournalError::NoStudy),
        }
    }
    state.ok_or(JournalError::NoStudy)
}

impl State {
    fn fold(&mut self, entry: Entry) -> Result<(), u32> {
        match entry {
            Entry::Study { .. } => {}
            Entry::Begin { number, attempt, .. } => {
                self.slot(number).ok_or(number)?;
                self.open = Some((number, attempt));
            }
            Entry::End { run } => {
                self.slot(run.number).ok_or(run.number)?;
                self.open = None;
                self.runs.push(*run);
            }
            Entry::Reread { number, attempt, metrics, sources, kv_sources } => {
                let place = |run: &&mut Run| run.number == number && run.attempt == attempt;
                let run = self.runs.iter_mut().find(place).ok_or(number)?;
                (run.metrics, run.sources, run.kv_sources) = (metrics, sources, kv_sources);
            }
            Entry::Lost { number, attempt, .. } => {
                let lost = self.run(self.slot(number).ok_or(number)?, attempt);
                self.open = None;
                self.runs.push(Run { failure: Some(LOST.to_owned()), ..lost });
            }
        }
        Ok(())
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.number == number)
    }

    /// A run of a slot, before it has begun.
    pub fn run(&self, slot: &Slot, attempt: u32) -> Run {
        Run {
            number: slot.number,
            attempt,
            environment: slot.environment.clone(),
            model: slot.model.clone(),
            iteration: slot.iteration,
            warmup: slot.warmup,
            round: slot.round,
            ..Run::default()
        }
    }

    /// The first slot that has neither succeeded nor used up its retries. What was lost counts for nothing.
    pub fn next(&self) -> Option<Next<'_>> {
        self.slots.iter().find_map(|slot| {
            let attempts = self.runs.iter().filter(|run| run.number == slot.number);
            let done = attempts.clone().any(|run| run.failure.is_none());
            let failed = attempts.clone().filter(|run| run.failure.as_deref() != Some(LOST)).count();
            let given_up = failed > self.plan.retries as usize;
            let attempt = attempts.map(|run| run.attempt).max().unwrap_or(0) + 1;
            (!done && !given_up).then_some(Next { slot, attempt })
        })
    }

    pub fn results(&self) -> Results {
        let names = |names: Vec<&String>| names.into_iter().cloned().collect();
        Results {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            name: self.plan.name.clone(),
            description: self.plan.description.clone(),
            origin: Origin::Run,
            environments: names(self.plan.environments.iter().map(|environment| &environment.name).collect()),
            models: names(self.plan.models.iter().map(|model| &model.name).collect()),
            alike: self.plan.alike(),
            order: Some(self.plan.order),
            primary: self.plan.primary.clone(),
            planned: Some(self.plan.runs),
            machine: self.machine.clone(),
            runs: self.runs.clone(),
        }
    }
}

/// Why a run that was never ended has failed.
pub const LOST: &str = "lost: the study was cut off while it ran";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::schedule;

    fn plan() -> Plan {
        let text = "name = \"p\"\nruns = 2\nretries = 1\n[[environments]]\nname = \"a\"\nkind = \"native\"\n\
                    [[environments]]\nname = \"b\"\nkind = \"native\"\nvalues = { x = \"1\" }\n[[models]]\nname = \"m\"\n\
                    [workload]\ncommand = [\"true\"]\n";
        Plan::parse(text).unwrap()
    }

    fn text(entries: &[Entry]) -> String {
        let plan = plan();
        let slots = schedule(&plan);
        let study = Entry::Study {
            schema: JOURNAL_SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            plan: Box::new(plan),
            slots,
            machine: BTreeMap::new(),
        };
        let lines =
            std::iter::once(&study).chain(entries).map(|entry| serde_json::to_string(entry).unwrap() + "\n");
        lines.collect()
    }

    fn begin(number: u32, attempt: u32) -> Entry {
        Entry::Begin { number, attempt, at_s: 1.0 }
    }

    fn end(number: u32, attempt: u32, failure: Option<&str>) -> Entry {
        let failure = failure.map(str::to_owned);
        Entry::End { run: Box::new(Run { number, attempt, failure, ..Run::default() }) }
    }

    fn next(state: &State) -> Option<(u32, u32)> {
        state.next().map(|next| (next.slot.number, next.attempt))
    }

    #[test]
    fn runs_follow_each_other() {
        assert_eq!(next(&read(&text(&[])).unwrap()), Some((1, 1)));
        let state = read(&text(&[begin(1, 1), end(1, 1, None)])).unwrap();
        assert_eq!((next(&state), state.open), (Some((2, 1)), None));
        let all: Vec<Entry> = (1..=4).flat_map(|number| [begin(number, 1), end(number, 1, None)]).collect();
        assert_eq!(next(&read(&text(&all)).unwrap()), None);
    }

    #[test]
    fn what_was_cut_off_is_repeated_and_counts_for_nothing() {
        let cut = text(&[begin(1, 1)]);
        let state = read(&cut).unwrap();
        assert_eq!(state.open, Some((1, 1)));
        // In the middle of a line, too.
        for end in cut.len() - 30..cut.len() {
            let shorter = read(&cut[..end]).unwrap();
            assert_eq!((shorter.open, shorter.whole), (None, cut.trim_end().rfind('\n').unwrap() + 1));
        }
        let lost = Entry::Lost { number: 1, attempt: 1, at_s: 2.0 };
        let again = |attempt: u32| [begin(1, attempt), Entry::Lost { number: 1, attempt, at_s: 2.0 }];
        let many: Vec<Entry> = (1..=5).flat_map(again).collect();
        assert_eq!(next(&read(&text(&[begin(1, 1), lost])).unwrap()), Some((1, 2)));
        assert_eq!(next(&read(&text(&many)).unwrap()), Some((1, 6)));
    }

    #[test]
    fn failures_are_kept_and_retried_as_often_as_the_plan_says() {
        let once = text(&[begin(1, 1), end(1, 1, Some("exit code 1"))]);
        assert_eq!(next(&read(&once).unwrap()), Some((1, 2)));
        let twice = text(&[begin(1, 1), end(1, 1, Some("x")), begin(1, 2), end(1, 2, Some("x"))]);
        let state = read(&twice).unwrap();
        assert_eq!((next(&state), state.results().runs.len()), (Some((2, 1)), 2));
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        for wrong in
            ["", "\n", "{}\n", "x\n", &text(&[begin(99, 1)]), &(text(&[]) + "{\"entry\":\"other\"}\n")]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn environments_that_differ_in_their_names_alone_are_alike() {
        let mut plan = plan();
        assert!(plan.alike().is_empty());
        plan.environments[1].values.clear();
        assert_eq!(plan.alike(), [("a".to_owned(), "b".to_owned())]);
    }
}
