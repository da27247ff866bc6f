//! Programs are loaded side by side before they are attached one after the other. The verifier takes a tenth of a second for all of
//! them, and of those with the right to it checks as many at a time as there are CPUs (kernel/bpf/verifier.c bpf_check: its lock is
//! for the others).

use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::programs::{BtfTracePoint, FEntry, FExit, Program, ProgramError, RawTracePoint};
use spark_trace_common::hook::{Mechanism, Place};

use super::{Object, attach::of_type};
use crate::attach_plan::Step;

/// More threads would wait for the one that has the longest program.
const MOST_THREADS: usize = 4;

impl Object {
    /// Loads what is tried first of each of these hooks. Says which programs are loaded; what fails is tried again, and reported,
    /// in its turn.
    pub(super) fn load_ahead<'a>(
        &mut self,
        steps: impl Iterator<Item = &'a Step>,
        kernel_types: &aya::Btf,
    ) -> HashSet<&'static str> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        if threads < 2 {
            return HashSet::new();
        }
        let first = steps.filter_map(|step| step.candidates.first());
        let places = first.flat_map(|c| c.places().map(|place| (c.mechanism, place))).enumerate();
        let order: HashMap<&str, (usize, (Mechanism, Place))> =
            places.map(|(turn, (mechanism, place))| (place.program, (turn, (mechanism, place)))).collect();
        let programs =
            self.ebpf.programs_mut().filter_map(|(name, program)| Some((*order.get(name)?, program)));
        let mut programs: Vec<_> = programs.collect();
        // Taken from the end: the longest, that of mappings, is among the last hooks, and must not be begun last.
        programs.sort_by_key(|((turn, _), _)| *turn);
        let (left, loaded) = (Mutex::new(programs), Mutex::new(HashSet::new()));
        let work = || {
            loop {
                let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(((_, (mechanism, place)), program)) = next else { return };
                if load(mechanism, place, program, kernel_types) {
                    loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(place.program);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                // Without another thread this one does it all.
                let _ = thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        loaded.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is loaded now.
fn load(mechanism: Mechanism, place: Place, program: &mut Program, kernel_types: &aya::Btf) -> bool {
    match mechanism {
        Mechanism::OnDemand => is_ok(program, RawTracePoint::load),
        Mechanism::TpBtf => {
            is_ok(program, |program: &mut BtfTracePoint| program.load(place.target, kernel_types))
        }
        Mechanism::Fentry => is_ok(program, |program: &mut FEntry| program.load(place.target, kernel_types)),
        Mechanism::Fexit => is_ok(program, |program: &mut FExit| program.load(place.target, kernel_types)),
        // With its return, or in a thread of its own.
        Mechanism::Kprobe | Mechanism::Uprobe | Mechanism::UprobeMulti => false,
    }
}

fn is_ok<'a, P>(program: &'a mut Program, load: impl FnOnce(&mut P) -> Result<(), ProgramError>) -> bool
where
    P: 'a,
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    of_type(program).is_ok_and(|program| load(program).is_ok())
}
