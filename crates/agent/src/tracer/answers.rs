//! Memory queries that were answered, on their way into the journal.
//!
//! Some of the machine's state at an answer only files of the kernel and maps of the eBPF programs have. Reading them takes far
//! longer than an event may, and the event buffer fills meanwhile. So answers wait until the events at hand are handled, and one
//! reading serves all of them.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use super::{
    Tracer, TracerError,
    tentative::{Belongs, Deferred},
    unwinding::UserStack,
};
use crate::decode::{FilePart, FileRead, Query};
use crate::{now_ns, page_size, symbols::Placed};
use spark_trace_host::meminfo;
use spark_trace_recording::{CudaOwn, LaterState, MemoryQuery, journal::Entry};

/// MemFree is the page allocator's free pages on every kernel but those that count memory to come: less than this
/// between two readings is only time that went by.
const BEYOND_FREE: u64 = 256 << 20;

/// Answers that a framework sizes its caches by: which stacks and files have the memory is read soon after.
const SIZING: &[&str] = &[CUDA, "sysinfo"];

/// Engines that go by another figure ask this first.
const CUDA: &str = "cuMemGetInfo_v2";

/// Files of which parts may still come. With more of them all count as read to their ends.
const MOST_FILES: usize = 1024;

/// An answer, and what had to be read when its event came.
pub(super) struct Answer {
    row: MemoryQuery,
    placed: Option<Placed>,
    /// Bytes that the target had allocated through the CUDA driver, by kind, after the events before this one.
    cuda_live: BTreeMap<String, u64>,
    /// The part of the process that queried.
    cuda_own: Option<CudaOwn>,
}

/// A file that a thread has read so far, from its beginning.
struct Reading {
    part: FilePart,
    answer: Answer,
}

#[derive(Default)]
pub(super) struct Answers {
    /// Files being read, by thread, name and directory.
    readings: HashMap<(u32, String, String), Reading>,
    /// Whole answers that wait for the end of the events at hand: no more than the event buffer has room for.
    waiting: Vec<Answer>,
    /// The time of the newest answer that lacks what is read after it; absent where none does.
    incomplete_ns: Option<u64>,
    /// The last reading that served any.
    later: Option<Later>,
    /// One of those that were kept may size an engine: who else has memory is to be read.
    engine_may_size: bool,
}

/// Counters that only files of the kernel and maps have, as they were at one time.
#[derive(Debug, Clone, Copy)]
struct Later {
    at_ns: u64,
    mem_free: Option<u64>,
    /// In no counter: the kernel works it out for each reader.
    mem_available: Option<u64>,
    /// Of MemFree the bytes beyond what the page allocator has free.
    beyond: u64,
    driver_bytes: Option<u64>,
}

impl Later {
    fn read(driver_bytes: Option<u64>) -> Self {
        let at_ns = now_ns();
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mem_free = meminfo::field(&text, "MemFree");
        let beyond = mem_free.zip(allocator_free()).map(|(all, allocator)| all.saturating_sub(allocator));
        Self {
            at_ns,
            mem_free,
            mem_available: meminfo::field(&text, "MemAvailable"),
            beyond: beyond.filter(|bytes| *bytes > BEYOND_FREE).unwrap_or(0),
            driver_bytes,
        }
    }
}

/// What the page allocator has free now, bytes.
fn allocator_free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let pages = text.lines().find_map(|line| line.strip_prefix("nr_free_pages "))?;
    pages.trim().parse::<u64>().ok()?.checked_mul(page_size())
}

impl Answer {
    fn complete(&mut self, later: &Later) {
        let Some(state) = self.row.state.as_mut().filter(|state| state.later.is_none()) else { return };
        state.mem_free = later.mem_free.map(|_| state.free + later.beyond);
        state.later = Some(LaterState {
            age_ns: later.at_ns.saturating_sub(self.row.at_ns),
            mem_free: later.mem_free,
            mem_available: later.mem_available,
            driver_bytes: later.driver_bytes,
            cuda_live: std::mem::take(&mut self.cuda_live),
            cuda_own: self.cuda_own,
        });
    }
}

impl Answers {
    /// A file was read from its beginning. One that the thread has read before is whole.
    fn begin(&mut self, part: FilePart, answer: Answer) {
        if self.readings.len() >= MOST_FILES {
            self.finish_before(u64::MAX);
        }
        self.lacks_rest(&answer);
        let key = (answer.row.tid, part.name.clone(), part.parent.clone());
        if let Some(before) = self.readings.insert(key, Reading { part, answer }) {
            self.finish(before);
        }
    }

    /// A later part was read; without its beginning it shows nothing.
    fn append(&mut self, tid: u32, part: FilePart) {
        let FilePart { name, parent, .. } = &part;
        if let Some(reading) = self.readings.get_mut(&(tid, name.clone(), parent.clone())) {
            reading.part.append(&part);
        }
    }

    fn wait(&mut self, answer: Answer) {
        self.lacks_rest(&answer);
        self.waiting.push(answer);
    }

    fn lacks_rest(&mut self, answer: &Answer) {
        if answer.row.state.is_some() {
            self.incomplete_ns = self.incomplete_ns.max(Some(answer.row.at_ns));
        }
    }

    fn complete(&mut self, later: Later) {
        let readings = self.readings.values_mut().map(|reading| &mut reading.answer);
        readings.chain(&mut self.waiting).for_each(|answer| answer.complete(&later));
        self.later = Some(later);
    }

    fn finish(&mut self, reading: Reading) {
        let Reading { part, mut answer } = reading;
        if let Some(row) = part.answer(std::mem::take(&mut answer.row)) {
            answer.row = row;
            self.waiting.push(answer);
        }
    }

    /// Takes the files as whole that were begun before `before_ns`.
    fn finish_before(&mut self, before_ns: u64) {
        let done = self.readings.extract_if(|_, reading| reading.answer.row.at_ns < before_ns);
        let mut done: Vec<_> = done.map(|(_, reading)| reading).collect();
        done.sort_by_key(|reading| reading.answer.row.at_ns);
        done.into_iter().for_each(|reading| self.finish(reading));
    }
}

impl<W: Write> Tracer<W> {
    pub(super) fn query_event(&mut self, query: Query) {
        if let Some(answer) = self.answer(query) {
            self.answers.wait(answer);
        }
    }

    /// A file may be read in parts: its figures are known when all of them are there.
    pub(super) fn file_read_event(&mut self, read: FileRead) {
        let FileRead { query, part } = read;
        if part.position > 0 {
            self.answers.append(query.row.tid, part);
        } else if let Some(answer) = self.answer(query) {
            self.answers.begin(part, answer);
        }
    }

    /// `None` where it is somebody else's, or where there is no room for it.
    fn answer(&mut self, query: Query) -> Option<Answer> {
        let Query { row, stack, caller, copy, python } = query;
        if self.belongs(row.cgroup, row.pid) == Belongs::Elsewhere || self.retention.refuses_query() {
            return None;
        }
        let stack = UserStack { pid: row.pid, addresses: &stack, caller, copy };
        let placed = self.place(stack, python.as_ref());
        let (cuda_live, cuda_own) = match row.state {
            Some(_) => (self.collector.cuda.now().by_kind, self.collector.cuda.own(row.pid)),
            None => (BTreeMap::new(), None),
        };
        let cuda_live = cuda_live.into_iter().map(|(kind, live)| (kind.to_owned(), live)).collect();
        Some(Answer { row, placed, cuda_live, cuda_own })
    }

    /// The events at hand are handled: the answers among them are completed and kept.
    pub fn finish_answers(&mut self) -> Result<(), TracerError> {
        // The rest is of no use beyond what is kept, and not free.
        let incomplete_ns = self.answers.incomplete_ns.take();
        if let Some(at_ns) = incomplete_ns.filter(|_| self.retention.has_room_for_query()) {
            // Where events are behind, the last reading is later than many of them.
            let later = match self.answers.later {
                Some(later) if later.at_ns >= at_ns => later,
                _ => Later::read(self.driver_bytes()?.map(|driver| driver.total())),
            };
            self.answers.complete(later);
        }
        let mut sizing = false;
        for Answer { row, placed, .. } in std::mem::take(&mut self.answers.waiting) {
            match self.belongs(row.cgroup, row.pid) {
                Belongs::Ours => sizing |= self.keep_query(row, placed)?,
                Belongs::Undecided => {
                    self.tentative.wait(row.cgroup, Deferred::Query(Box::new(row), placed));
                }
                Belongs::Elsewhere => {}
            }
        }
        if std::mem::take(&mut self.answers.engine_may_size) {
            self.want_neighbours()?;
        }
        if sizing { self.read_aggregates_at_answer() } else { Ok(()) }
    }

    /// Takes the files as whole whose reading began before `before_ns`.
    pub fn finish_readings(&mut self, before_ns: u64) -> Result<(), TracerError> {
        self.answers.finish_before(before_ns);
        self.finish_answers()
    }

    /// Adds a query to the journal, if there is room. Says whether frameworks size their caches by such an answer.
    pub(super) fn keep_query(
        &mut self,
        mut row: MemoryQuery,
        placed: Option<Placed>,
    ) -> Result<bool, TracerError> {
        if !self.retention.take_query() {
            return Ok(false);
        }
        row.stack = placed.and_then(|placed| self.stacks.keep(placed));
        let sizing = SIZING.contains(&row.interface.as_str());
        self.answers.engine_may_size |= row.interface == CUDA && row.result == 0;
        self.journal.add(Entry::Query(Box::new(row)))?;
        Ok(sizing)
    }

    /// Queries that were not kept.
    pub const fn queries_lost(&self) -> u64 {
        self.retention.queries_lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_common::event::AnswerSource;
    use spark_trace_recording::MemoryState;

    fn answer(at_ns: u64, free: Option<u64>) -> Answer {
        let state = free.map(|free| MemoryState { free, ..MemoryState::default() });
        let row = MemoryQuery { at_ns, tid: 1, state, ..MemoryQuery::default() };
        Answer {
            row,
            placed: None,
            cuda_live: BTreeMap::from([("device".to_owned(), at_ns)]),
            cuda_own: None,
        }
    }

    fn part(position: u64, content: &[u8]) -> FilePart {
        FilePart {
            source: AnswerSource::ReadProc,
            name: "meminfo".to_owned(),
            parent: "/".to_owned(),
            position,
            content: content.to_vec(),
        }
    }

    fn later(at_ns: u64, beyond: u64) -> Later {
        Later { at_ns, mem_free: Some(70), mem_available: Some(90), beyond, driver_bytes: None }
    }

    #[test]
    fn one_reading_completes_all_that_wait_and_none_twice() {
        let mut answers = Answers::default();
        answers.wait(answer(5, Some(60)));
        answers.wait(answer(7, None));
        answers.begin(part(0, b"MemTotal: 8 kB\n"), answer(6, Some(61)));
        assert_eq!(answers.incomplete_ns, Some(6));
        answers.complete(later(105, 1000));
        answers.complete(later(999, 0));
        answers.finish_before(u64::MAX);
        let [first, without, file] = &answers.waiting[..] else { panic!("three answers") };
        let state = first.row.state.as_ref().unwrap();
        let read = state.later.as_ref().unwrap();
        assert_eq!((state.free, state.mem_free, read.age_ns), (60, Some(1060), 100));
        assert_eq!((read.mem_free, read.mem_available, read.driver_bytes), (Some(70), Some(90), None));
        assert_eq!(read.cuda_live["device"], 5);
        assert!(without.row.state.is_none(), "what the kernel side did not see stays unknown");
        assert_eq!(file.row.state.as_ref().unwrap().later.as_ref().unwrap().age_ns, 99);
        assert_eq!(file.row.values["MemTotal"], 8192);
    }

    #[test]
    fn a_file_is_whole_when_it_is_read_again_or_old() {
        let mut answers = Answers::default();
        answers.append(1, part(15, b"without its beginning\n"));
        answers.begin(part(0, b"MemTotal: 8 kB\n"), answer(5, None));
        answers.append(1, part(15, b"MemFree: 4 kB\n"));
        answers.append(2, part(29, b"MemAvailable: 1 kB\n"));
        assert!(answers.waiting.is_empty());
        answers.begin(part(0, b"MemTotal: 8 kB\n"), answer(6, None));
        let figures = |answer: &Answer| answer.row.values.keys().cloned().collect::<Vec<_>>();
        assert_eq!(answers.waiting.iter().map(figures).collect::<Vec<_>>(), [["MemFree", "MemTotal"]]);
        answers.finish_before(6);
        assert_eq!(answers.waiting.len(), 1, "not old enough");
        answers.finish_before(7);
        assert_eq!((answers.waiting.len(), figures(&answers.waiting[1]).len()), (2, 1));
    }

    #[test]
    fn files_that_are_never_read_to_their_ends_do_not_pile_up() {
        let mut answers = Answers::default();
        for tid in 0..3 * MOST_FILES as u32 {
            let mut answer = answer(u64::from(tid), None);
            answer.row.tid = tid;
            answers.begin(part(0, b"MemTotal: 8 kB\n"), answer);
            assert!(answers.readings.len() <= MOST_FILES);
        }
        assert_eq!(answers.readings.len() + answers.waiting.len(), 3 * MOST_FILES);
    }

    #[test]
    fn the_kernel_says_what_is_free() {
        let read = Later::read(Some(5));
        let (free, available) = (read.mem_free.unwrap(), read.mem_available.unwrap());
        assert!(free > 0 && available > 0 && read.at_ns <= now_ns() && read.driver_bytes == Some(5));
        assert!(allocator_free().unwrap() > 0);
    }
}
