//! What happens between runs: waiting for gates, giving up, and coming back.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Event, Run, RunError, Runner, gates, machine, now};
use crate::analysis;
use crate::analysis::ending::{self, Ending};
use crate::journal::Entry;
use crate::plan::OnClosed;
use crate::results::{BOOT, Why};
use crate::schedule::Slot;

impl Runner<'_> {
    /// Describes the machine again where the study goes on, and names the runs that warm it up.
    pub(super) fn resumed(
        &mut self,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<(Slot, u32)>, RunError> {
        if self.state.runs.is_empty() {
            return Ok(vec![]);
        }
        let machine = machine::describe(&self.state.plan, &self.options.spark_trace);
        let rebooted = self.state.machine_now.get(BOOT).is_some_and(|boot| machine.get(BOOT) != Some(boot));
        self.happened(Entry::Resumed { at_s: now(), machine })?;
        let mut again = self.state.warm_ups_again();
        // The last of them is taken first.
        again.reverse();
        if rebooted {
            report(Event::Note("the machine was started again since the last run".to_owned()));
        }
        if !again.is_empty() {
            report(Event::Note(format!("{} warm-up runs come first", again.len())));
        }
        Ok(again)
    }

    /// When the last run of an earlier runner ended: the cooldown after it may not be over.
    pub(super) fn last_end(&self) -> Option<Instant> {
        let ended = self.state.runs.iter().filter_map(|run: &Run| run.ended_s).next_back()?;
        let ago = Duration::try_from_secs_f64(now() - ended).ok()?;
        Instant::now().checked_sub(ago)
    }

    /// Leaves out what is left of a model in an environment in which it keeps failing.
    pub(super) fn give_up(&mut self, report: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let (Some(most), Some(last)) = (self.state.plan.give_up_after, self.state.runs.last()) else {
            return Ok(());
        };
        let (environment, model) = (last.environment.clone(), last.model.clone());
        let failures = self.state.failures_in_a_row(&environment, &model);
        if failures < most {
            return Ok(());
        }
        let here = |slot: &&Slot| slot.environment == environment && slot.model == model;
        let numbers: Vec<u32> = self.state.left().filter(here).map(|slot| slot.number).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        report(Event::Note(format!(
            "{model} in {environment} failed {failures} times one after the other: {} runs are left out",
            numbers.len()
        )));
        let why = Why::GivenUp { environment, model, failures };
        self.happened(Entry::LeftOut { at_s: now(), numbers, why })
    }

    /// Leaves out a model's other rounds when a look of the plan has decided it.
    pub(super) fn end_at_look(&mut self, report: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let Some(last) = self.state.runs.last().filter(|_| self.state.plan.end_at_looks) else {
            return Ok(());
        };
        let model = last.model.clone();
        let over = self.state.rounds_over().get(&model).copied();
        let numbers: Vec<u32> =
            self.state.left().filter(|slot| slot.model == model).map(|slot| slot.number).collect();
        if numbers.is_empty() || !over.is_some_and(|over| self.state.plan.looks.contains(&over)) {
            return Ok(());
        }
        let Some(ending) = ending::of(&self.state.results(), &model, analysis::Options::default()) else {
            return Ok(());
        };
        let Ending { number, looks, round, because } = ending;
        report(Event::Note(format!(
            "{model} stops at look {number} of {looks}: {because}; {} runs are left out",
            numbers.len()
        )));
        let why = Why::Decided { model, round, number, looks, because };
        self.happened(Entry::LeftOut { at_s: now(), numbers, why })
    }

    /// Waits until all gates are open; whether the run can be made.
    pub(super) fn gates(
        &mut self,
        slot: &Slot,
        last: Option<Instant>,
        stop: &Path,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, RunError> {
        let mut last = last;
        loop {
            let signals = self.signals;
            let closed =
                match gates::wait(&self.state.plan.gates, last, || signals.interrupted() || stop.exists()) {
                    // The runner looks whether it is to stop before each run.
                    Err(RunError::Interrupted) if !signals.interrupted() => return Ok(false),
                    closed => closed,
                };
            let Err(RunError::Gate { gate, reason, waited }) = closed else { return closed.map(|()| true) };
            let (at_s, waited_s, name) = (now(), waited.as_secs_f64(), gate.to_owned());
            match self.state.plan.gates.on_closed {
                OnClosed::Stop => return Err(RunError::Gate { gate, reason, waited }),
                OnClosed::Wait => {
                    report(Event::Note(format!(
                        "the gate {gate} is closed for {waited_s} s: {reason}; waiting on"
                    )));
                    self.happened(Entry::GateClosed { at_s, gate: name, reason, waited_s })?;
                    // The cooldown is over.
                    last = None;
                }
                OnClosed::Skip => {
                    let numbers = self.rest_of_round(slot);
                    report(Event::Note(format!(
                        "the gate {gate} stayed closed: {reason}; {} runs of the round are left out",
                        numbers.len()
                    )));
                    if numbers.is_empty() {
                        return Ok(false);
                    }
                    let why = Why::Gate { gate: name, reason, waited_s };
                    self.happened(Entry::LeftOut { at_s, numbers, why })?;
                    return Ok(false);
                }
            }
        }
    }

    /// Runs of the same round that are still to be made; the run alone where there are no rounds.
    fn rest_of_round(&self, slot: &Slot) -> Vec<u32> {
        let beside = |other: &&Slot| {
            other.number == slot.number
                || slot.round.is_some() && other.round == slot.round && other.model == slot.model
        };
        // A warm-up again has the number of the run after it, which is still to be made.
        let beside = |other: &&Slot| beside(other) && other.warmup == slot.warmup;
        self.state.left().filter(beside).map(|slot| slot.number).collect()
    }
}
