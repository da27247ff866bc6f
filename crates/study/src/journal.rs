//! The journal of a study: a line for each thing that happened, appended and written through before the next one.
//!
//! A crash loses at most the run under way. Reading it again gives the state, and what to do next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::plan::Plan;
use super::results::{
    APPLICATION, BOOT, Change, Happening, Origin, Results, Run, SCHEMA, What, Why, is_momentary,
};
use super::schedule::Slot;

pub const JOURNAL_SCHEMA: &str = "spark-trace/study-journal";
/// 2: entries `resumed`, `gate-closed` and `left-out`. 3: a look that leaves out runs.
pub const JOURNAL_VERSION: u32 = 3;

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
    /// The runner came back: what it runs on now.
    Resumed {
        at_s: f64,
        machine: BTreeMap<String, String>,
    },
    /// A gate was closed for the time that the plan waits, and the runner goes on waiting.
    GateClosed {
        at_s: f64,
        gate: String,
        reason: String,
        waited_s: f64,
    },
    /// Runs that are not made.
    LeftOut {
        at_s: f64,
        numbers: Vec<u32>,
        why: Why,
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
    /// Numbers of runs that are not made.
    pub left_out: BTreeSet<u32>,
    pub happenings: Vec<Happening>,
    /// Starts of the machine since the first run.
    pub boots: u32,
    /// As the machine was described last.
    pub machine_now: BTreeMap<String, String>,
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
                if schema_version > JOURNAL_VERSION {
                    return Err(JournalError::TooNew(schema_version));
                }
                state = Some(State {
                    plan: *plan,
                    slots,
                    machine_now: machine.clone(),
                    machine,
                    boots: 0,
                    runs: vec![],
                    open: None,
                    left_out: BTreeSet::new(),
                    happenings: vec![],
                    whole,
                });
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
    /// Takes in what happened next; an error is the number of a run that the plan does not have.
    pub(crate) fn fold(&mut self, entry: Entry) -> Result<(), u32> {
        match entry {
            Entry::Study { .. } => {}
            Entry::Begin { number, attempt, .. } => {
                self.slot(number).ok_or(number)?;
                self.open = Some((number, attempt));
            }
            Entry::End { run } => {
                self.slot(run.number).ok_or(run.number)?;
                self.open = None;
                self.runs.push(Run { boots: self.boots, ..*run });
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
            Entry::Resumed { at_s, machine } => {
                let changed = changes(&self.machine_now, &machine);
                self.boots += u32::from(changed.iter().any(|change| change.fact == BOOT));
                self.machine_now = machine;
                self.happened(at_s, What::Resumed { changed });
            }
            Entry::GateClosed { at_s, gate, reason, waited_s } => {
                // One gate that stays closed is one happening, however often the runner writes it down.
                if let Some(Happening {
                    what: What::GateClosed { gate: last, reason: why, waited_s: sum },
                    after,
                    ..
                }) = self.happenings.last_mut()
                    && *last == gate
                    && *after == self.runs.last().map(|run| run.number)
                {
                    (*why, *sum) = (reason, *sum + waited_s);
                } else {
                    self.happened(at_s, What::GateClosed { gate, reason, waited_s });
                }
            }
            Entry::LeftOut { at_s, numbers, why } => {
                numbers.iter().try_for_each(|&number| self.slot(number).map(drop).ok_or(number))?;
                self.left_out.extend(&numbers);
                self.happened(at_s, What::LeftOut { numbers, why });
            }
        }
        Ok(())
    }

    fn happened(&mut self, at_s: f64, what: What) {
        self.happenings.push(Happening { at_s, after: self.runs.last().map(|run| run.number), what });
    }

    /// Runs that neither succeeded, nor used up their retries, nor were left out.
    pub fn left(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| self.attempt_of(slot).is_some())
    }

    /// Failures of a model in an environment since it last succeeded there. What was lost counts for nothing.
    pub fn failures_in_a_row(&self, environment: &str, model: &str) -> u32 {
        let here = self.runs.iter().rev().filter(|run| run.environment == environment && run.model == model);
        let ended = here.filter(|run| run.failure.as_deref() != Some(LOST));
        u32::try_from(ended.take_while(|run| run.failure.is_some()).count()).unwrap_or(u32::MAX)
    }

    /// The next attempt at a run; absent where it is not to be made.
    fn attempt_of(&self, slot: &Slot) -> Option<u32> {
        if self.left_out.contains(&slot.number) {
            return None;
        }
        let attempts = self.runs.iter().filter(|run| run.number == slot.number);
        // A run that only warmed up again, after the runner came back, stands for no other.
        let own = attempts.clone().filter(|run| run.warmup == slot.warmup);
        let done = own.clone().any(|run| run.failure.is_none());
        let failed = own.filter(|run| run.failure.as_deref() != Some(LOST)).count();
        let given_up = failed > self.plan.retries as usize;
        let attempt = attempts.map(|run| run.attempt).max().unwrap_or(0) + 1;
        (!done && !given_up).then_some(attempt)
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
        self.slots.iter().find_map(|slot| Some(Next { slot, attempt: self.attempt_of(slot)? }))
    }

    /// Runs that warm the machine up again after the runner came back: one of each environment, for the model that is
    /// under way. None where the plan has no warm-ups, or those themselves are next.
    pub fn warm_ups_again(&self) -> Vec<(Slot, u32)> {
        let Some(next) = self.next().filter(|next| self.plan.warmups > 0 && !next.slot.warmup) else {
            return vec![];
        };
        let of_environment = |environment: &str| {
            let mut left = self.left().filter(|slot| slot.model == next.slot.model);
            let slot = left.find(|slot| slot.environment == environment)?;
            let again = Slot { warmup: true, round: None, iteration: 0, ..slot.clone() };
            Some((again, self.attempt_of(slot)?))
        };
        self.plan.environments.iter().filter_map(|environment| of_environment(&environment.name)).collect()
    }

    /// By model, the rounds from the first on in which no run is left to be made.
    pub(crate) fn rounds_over(&self) -> BTreeMap<String, u32> {
        let mut over: BTreeMap<String, u32> =
            self.plan.models.iter().map(|model| (model.name.clone(), self.plan.runs)).collect();
        for slot in self.left() {
            // Warm-ups have no round: before them none is over.
            let before = slot.round.map_or(0, |round| round.saturating_sub(1));
            over.entry(slot.model.clone()).and_modify(|rounds| *rounds = before.min(*rounds));
        }
        // A model that a look has ended stays at that look: its other rounds are not over, they are not made.
        for happening in &self.happenings {
            if let What::LeftOut { why: Why::Decided { model, round, .. }, .. } = &happening.what {
                over.entry(model.clone()).and_modify(|rounds| *rounds = (*round).min(*rounds));
            }
        }
        over
    }

    /// By environment, the engines and versions that its logs have.
    fn applications(&self) -> impl Iterator<Item = (String, String)> {
        let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for run in &self.runs {
            if let Some(application) = run.facts.get(APPLICATION) {
                known.entry(&run.environment).or_default().insert(application);
            }
        }
        known.into_iter().map(|(environment, versions)| {
            let versions: Vec<&str> = versions.into_iter().collect();
            (format!("application.{environment}.log"), versions.join(", "))
        })
    }

    pub fn results(&self) -> Results {
        let names = |names: Vec<&String>| names.into_iter().cloned().collect();
        Results {
            schema: SCHEMA.to_owned(),
            schema_version: crate::results::SCHEMA_VERSION,
            name: self.plan.name.clone(),
            description: self.plan.description.clone(),
            origin: Origin::Run,
            environments: names(self.plan.environments.iter().map(|environment| &environment.name).collect()),
            models: names(self.plan.models.iter().map(|model| &model.name).collect()),
            alike: self.plan.alike(),
            order: Some(self.plan.order),
            primary: self.plan.primary.clone(),
            planned: Some(self.plan.runs),
            looks: self.plan.looks.clone(),
            rounds_over: self.rounds_over(),
            traits: self
                .plan
                .models
                .iter()
                .filter_map(|model| Some((model.name.clone(), model.traits()?)))
                .collect(),
            units: self.plan.units(),
            machine: self
                .machine
                .iter()
                .filter(|(fact, _)| *fact != BOOT)
                .map(owned)
                .chain(self.applications())
                .collect(),
            runs: self.runs.clone(),
            happenings: self.happenings.clone(),
        }
    }
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

pub fn changes(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let lasting = names.into_iter().filter(|name| !is_momentary(name));
    let differ = lasting.filter(|name| before.get(*name) != now.get(*name));
    let change = |fact: &String| Change {
        fact: fact.clone(),
        before: before.get(fact).cloned(),
        now: now.get(fact).cloned(),
    };
    differ.map(change).collect()
}

/// Why a run that was never ended has failed.
pub const LOST: &str = "lost: the study was cut off while it ran";

#[cfg(test)]
mod tests;
