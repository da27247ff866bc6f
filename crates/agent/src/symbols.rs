//! Stacks as the recording keeps them: each distinct stack and each distinct frame once.
//!
//! A process's mapped files are noted, and kept open, while it lives: its stacks can be named after it has
//! ended, its container is gone or the file was deleted. Names are looked up only when a snapshot of
//! the aggregates is taken, and once for each frame.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{MapData, StackTraceMap};

use super::{
    code::{Code, Found},
    kallsyms::Awaited,
    mapped::{MappedFile, MappedFiles},
    maps::Mapping,
    names::{NO_TIME, Namer},
    python,
    unwind::{Range, Ranges},
};
use spark_trace_recording::{ReaderCost, Space, Stack, Symbol, Way};

/// Stacks and frames kept, some 30 MiB of them: a trace may go on for days. Stacks of the kernel have the bound of their map.
const MOST_STACKS: usize = 50_000;
const MOST_SYMBOLS: usize = 200_000;

#[derive(Debug)]
pub struct Stacks {
    kallsyms: Awaited,
    stacks: Vec<Stack>,
    by_frames: HashMap<(bool, Vec<u32>), u32>,
    /// Ids of kernel stacks by those of the kernel side.
    by_kernel_id: HashMap<u32, u32>,
    /// Addresses of kernel stacks that have no id yet, by those of the kernel side.
    noted: HashMap<u32, Vec<u64>>,
    symbols: Vec<Symbol>,
    by_place: HashMap<Place, u32>,
    /// User symbols still to be named: index in `symbols`, file, offset.
    unnamed: Vec<(u32, usize, u64)>,
    files: MappedFiles,
    code: Code,
    /// Code of processes whose stacks were unwound lately.
    ranges: HashMap<u32, Arc<Ranges>>,
    namer: Namer,
    /// Frames of Python, each once.
    python: Vec<python::Frame>,
    by_python: HashMap<python::Frame, u32>,
    refused: u64,
}

/// Which stacks are to have the names of their frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    None,
    /// All of them, while whoever wants them waits no longer than that; the names that come later come with the next.
    All(Duration),
    /// Those with these ids, likewise.
    Of(Vec<u32>, Duration),
}

/// Processes whose code is kept for unwinding.
const MOST_RANGES: usize = 64;

/// After this no file is begun that names are wanted from.
const LONGEST_NAMING: Duration = Duration::from_secs(60);

/// A user stack whose frames were found in the files that its process had mapped, and of which nothing is kept yet.
#[derive(Debug)]
pub struct Placed {
    places: Vec<Place>,
    way: Way,
}

impl Placed {
    pub const fn depth(&self) -> usize {
        self.places.len()
    }
}

/// What a frame is distinguished by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Kernel(u64),
    File(usize, u64),
    /// A user address in no file: generated code, or a process that was gone before it could be looked at.
    Unknown(u64),
    /// A function of Python's, by its number.
    Python(u32),
}

impl Stacks {
    pub fn new(kallsyms: impl Into<Awaited>) -> Self {
        Self {
            kallsyms: kallsyms.into(),
            stacks: Vec::new(),
            by_frames: HashMap::new(),
            by_kernel_id: HashMap::new(),
            noted: HashMap::new(),
            symbols: Vec::new(),
            by_place: HashMap::new(),
            unnamed: Vec::new(),
            files: MappedFiles::default(),
            code: Code::default(),
            ranges: HashMap::new(),
            namer: Namer::default(),
            python: Vec::new(),
            by_python: HashMap::new(),
            refused: 0,
        }
    }

    /// Id of a kernel stack, innermost frame first. The frames of tracing itself are left out: they say
    /// nothing, and their names differ from build to build.
    pub fn kernel(&mut self, addresses: &[u64]) -> u32 {
        let kallsyms = self.kallsyms.get();
        let own = |a: &u64| kallsyms.find(a.saturating_sub(1)).is_some_and(|n| is_tracing(n.name));
        let first = addresses.iter().position(|a| !own(a)).unwrap_or(0);
        let frames = addresses[first..]
            .iter()
            .map(|address| {
                intern(&mut self.symbols, &mut self.by_place, Place::Kernel(*address), || {
                    // A return address may lie just past the function that made the call.
                    let found = kallsyms.find(address.saturating_sub(1));
                    Symbol {
                        name: found.map(|n| n.name.to_owned()),
                        module: found.and_then(|n| n.module).map(ToOwned::to_owned),
                        address: *address,
                        ..Symbol::default()
                    }
                })
            })
            .collect();
        self.stack(None, frames)
    }

    /// Notes the kernel stack that the kernel side has under `id` in its map, for [`Self::noted_kernel`].
    pub fn note_kernel(&mut self, id: i32, traces: &StackTraceMap<&MapData>) {
        let Ok(id) = u32::try_from(id) else { return };
        if self.by_kernel_id.contains_key(&id) || self.noted.contains_key(&id) {
            return;
        }
        let frames = traces.get(&id, 0).map(|trace| trace.frames().iter().map(|frame| frame.ip).collect());
        self.noted.insert(id, frames.unwrap_or_default());
    }

    /// Id of the kernel stack that was noted under the kernel side's `id`; `None` where it could not take one. Waits for the
    /// kernel's symbols, by which the frames of tracing itself are known: at the start of a trace it is not called.
    pub fn noted_kernel(&mut self, id: i32) -> Option<u32> {
        let id = u32::try_from(id).ok()?;
        if let Some(known) = self.by_kernel_id.get(&id) {
            return Some(*known);
        }
        let addresses = self.noted.remove(&id)?;
        let stack = self.kernel(&addresses);
        self.by_kernel_id.insert(id, stack);
        Some(stack)
    }

    /// Both at once.
    pub fn kernel_by_id(&mut self, id: i32, traces: &StackTraceMap<&MapData>) -> Option<u32> {
        self.note_kernel(id, traces);
        self.noted_kernel(id)
    }

    /// Id of a user stack of `pid`. The kernel walks frame pointers, and a system call's stub keeps none, so
    /// the function that called the stub is missing; `caller` is where the stub returns to, if it is code.
    /// Absent where none was taken, and where there are too many.
    pub fn user(&mut self, pid: u32, addresses: &[u64], caller: u64) -> Option<u32> {
        let placed = self.place(pid, addresses, caller)?;
        self.keep(placed)
    }

    /// Finds out where the frames of a user stack lie, while its process still is the program that it was.
    pub fn place(&mut self, pid: u32, addresses: &[u64], caller: u64) -> Option<Placed> {
        if addresses.is_empty() {
            return None;
        }
        if self.stacks.len() >= MOST_STACKS || self.symbols.len() >= MOST_SYMBOLS {
            self.refused += 1;
            return None;
        }
        if !self.code.knows(pid) {
            self.look_at(pid);
        }
        let mut places = Vec::with_capacity(addresses.len() + 1);
        for (index, address) in addresses.iter().enumerate() {
            if index == 1 && *address != caller {
                places.extend(self.place_of(pid, caller).filter(|place| matches!(place, Place::File(..))));
            }
            match self.place_of(pid, *address) {
                Some(place) => places.push(place),
                // What the kernel takes for frame pointers beyond this are none: code without them was called.
                None if index > 0 => break,
                None => {
                    places.push(Place::Unknown(*address));
                    break;
                }
            }
        }
        if addresses.len() == 1 {
            places.extend(self.place_of(pid, caller).filter(|place| matches!(place, Place::File(..))));
        }
        Some(Placed { places, way: Way::FramePointers })
    }

    /// The same of a stack that was unwound: nobody is missing in it.
    pub fn place_unwound(&mut self, pid: u32, addresses: &[u64]) -> Option<Placed> {
        let placed = self.place(pid, addresses, 0)?;
        Some(Placed { way: Way::EhFrame, ..placed })
    }

    /// All code of a process that lies in files; looks at it first if that was never done.
    pub fn ranges(&mut self, pid: u32) -> Option<Arc<Ranges>> {
        if !self.code.knows(pid) {
            self.look_at(pid);
        }
        let (number, code) = self.code.of(pid)?;
        let known = self.ranges.get(&pid).filter(|known| known.number == number);
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let range = |(start, end, offset, file)| {
            let MappedFile { file: open, .. } = self.files.get(file);
            Range { start, end, offset, number: file as u64, file: open.clone() }
        };
        let ranges = Arc::new(Ranges { number, ranges: code.map(range).collect() });
        if self.ranges.len() >= MOST_RANGES {
            self.ranges.clear();
        }
        self.ranges.insert(pid, Arc::clone(&ranges));
        Some(ranges)
    }

    /// Whether an address of a process lies in a file, which is looked up where it is not known.
    pub fn is_in_file(&mut self, pid: u32, address: u64) -> bool {
        matches!(self.place_of(pid, address), Some(Place::File(..)))
    }

    /// Adds the frames of Python that called the outermost of a stack. One without a name has its code's address alone.
    pub fn called_by(
        &mut self,
        placed: Option<Placed>,
        frames: Vec<Option<python::Frame>>,
    ) -> Option<Placed> {
        if frames.is_empty() || self.python.len() + frames.len() > MOST_SYMBOLS {
            return placed;
        }
        let (mut places, way) =
            placed.map_or((Vec::new(), Way::FramePointers), |placed| (placed.places, placed.way));
        places.extend(frames.into_iter().map(|frame| match frame {
            Some(frame) => Place::Python(self.number_of(frame)),
            None => Place::Unknown(0),
        }));
        Some(Placed { places, way })
    }

    fn number_of(&mut self, frame: python::Frame) -> u32 {
        *self.by_python.entry(frame).or_insert_with_key(|frame| {
            self.python.push(frame.clone());
            self.python.len() as u32 - 1
        })
    }

    /// Where an address of a process lies; `None` where it is none of code.
    fn place_of(&mut self, pid: u32, address: u64) -> Option<Place> {
        match self.with_code(|code, number| code.find(pid, address, number), pid) {
            Found::File(file, offset) => Some(Place::File(file, offset)),
            Found::Generated | Found::Unknown => Some(Place::Unknown(address)),
            Found::Outside => None,
        }
    }

    /// Id of a stack that is kept.
    pub fn keep(&mut self, placed: Placed) -> Option<u32> {
        let frames = placed.places.into_iter().map(|place| self.user_frame(place)).collect();
        Some(self.stack(Some(placed.way), frames))
    }

    fn user_frame(&mut self, place: Place) -> u32 {
        let (file, offset) = match place {
            Place::File(file, offset) => (file, offset),
            Place::Unknown(address) | Place::Kernel(address) => {
                let symbol = || Symbol { address, ..Symbol::default() };
                return intern(&mut self.symbols, &mut self.by_place, place, symbol);
            }
            Place::Python(number) => {
                let frame = self.python.get(number as usize);
                let symbol = || Symbol {
                    name: frame.map(|frame| frame.function.to_string()),
                    module: frame.map(|frame| frame.file.to_string()),
                    line: frame.and_then(|frame| frame.line),
                    python: true,
                    ..Symbol::default()
                };
                return intern(&mut self.symbols, &mut self.by_place, place, symbol);
            }
        };
        let before = self.symbols.len();
        // Only now: a file that somebody else's process has mapped is not looked into.
        let build_id = self.files.build_id(file);
        let index = intern(&mut self.symbols, &mut self.by_place, place, || Symbol {
            name: None,
            module: Some(self.files.get(file).path.clone()),
            address: offset,
            build_id,
            ..Symbol::default()
        });
        if self.symbols.len() > before {
            self.unnamed.push((index, file, offset));
        }
        index
    }

    /// `way`: of a user stack. One that was found both ways is kept once, as it was found first.
    fn stack(&mut self, way: Option<Way>, frames: Vec<u32>) -> u32 {
        let kernel = way.is_none();
        let key = (kernel, frames);
        if let Some(id) = self.by_frames.get(&key) {
            return *id;
        }
        let id = self.stacks.len() as u32;
        let space = if kernel { Space::Kernel } else { Space::User };
        self.stacks.push(Stack { id, space: space.into(), frames: key.1.clone(), way: way.map(Into::into) });
        self.by_frames.insert(key, id);
        id
    }

    /// Notes which files `pid` has mapped executable, and holds them open.
    pub fn look_at(&mut self, pid: u32) {
        self.with_code(|code, number| code.look_at(pid, number), pid);
    }

    fn with_code<R>(
        &mut self,
        work: impl FnOnce(&mut Code, &mut dyn FnMut(&Mapping) -> Option<usize>) -> R,
        pid: u32,
    ) -> R {
        let files = &mut self.files;
        work(&mut self.code, &mut |mapping| files.number(pid, mapping))
    }

    /// A process has mapped something there, which may be a file, or nothing any more.
    pub fn changed(&mut self, pid: u32, start: u64, length: u64, is_file: bool, at_ns: u64) {
        self.code.changed(pid, (start, start.saturating_add(length)), is_file, at_ns);
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, pid: u32) {
        self.ranges.remove(&pid);
        self.code.forget(pid);
    }

    /// Forgets processes that turned out to be somebody else's, and lets go of the files that only they had mapped.
    pub fn drop_processes(&mut self, pids: &[u32]) {
        self.ranges.retain(|pid, _| !pids.contains(pid));
        let dropped: Vec<usize> = pids.iter().flat_map(|pid| self.code.forget(*pid)).collect();
        if dropped.is_empty() {
            return;
        }
        let used: HashSet<usize> =
            self.code.files().chain(self.unnamed.iter().map(|(_, file, _)| *file)).collect();
        for file in dropped.into_iter().filter(|file| !used.contains(file)) {
            self.files.let_go(file);
        }
    }

    /// Lets go of files that no process has mapped any more.
    /// Held open, those of a container that is gone would keep their place on the disk.
    pub fn rest(&mut self) {
        self.ranges.clear();
        self.files.keep_open(&self.code.files().collect());
    }

    /// Names the user frames that have no name yet, of these stacks or of all. Symbol tables are read into the page
    /// cache.
    pub fn name_frames(&mut self, names: &Names) {
        let (wanted, longest): (Option<HashSet<u32>>, Duration) = match names {
            Names::None => return self.take_names(Duration::ZERO),
            Names::All(longest) => (None, *longest),
            Names::Of(stacks, longest) => {
                let stacks = stacks.iter().filter_map(|id| self.stacks.get(*id as usize));
                (Some(stacks.flat_map(|stack| stack.frames.iter().copied()).collect()), *longest)
            }
        };
        let is_wanted = |index: &u32| wanted.as_ref().is_none_or(|set| set.contains(index));
        let mut places: HashMap<usize, Vec<(u32, u64)>> = HashMap::new();
        self.unnamed.retain(|(index, file, offset)| {
            if !is_wanted(index) {
                return true;
            }
            // A return address may lie just past the function that made the call.
            places.entry(*file).or_default().push((*index, offset.saturating_sub(1)));
            false
        });
        let until = Instant::now() + LONGEST_NAMING;
        for (file, places) in places {
            let MappedFile { path, file, closed, .. } = self.files.get(file);
            match (file, closed) {
                (Some(file), _) => self.namer.request(path, file, &places, until),
                (None, Some(why)) => self.namer.miss_frames(path, why, places.len() as u64),
                // It was let go of when nobody had it mapped any more.
                (None, None) => {}
            }
        }
        self.take_names(longest);
    }

    /// Takes in the names that have come, and waits no longer than that for the others.
    fn take_names(&mut self, longest: Duration) {
        let symbols = &mut self.symbols;
        self.namer.take(Instant::now() + longest, |index, name| symbols[index as usize].name = Some(name));
    }

    /// Whether names are still to come.
    pub fn awaits_names(&self) -> bool {
        self.namer.is_waiting()
    }

    /// Names that have not come by now do not come any more.
    pub fn end_naming(&mut self) {
        self.take_names(Duration::ZERO);
        self.namer.give_up(NO_TIME);
    }

    /// What is to be said about names that are missing.
    pub fn missing_names(&self) -> Vec<String> {
        self.namer.warnings()
    }

    /// Stacks for which there was no room.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Looks at code in files for which there was no room: its frames have addresses alone.
    pub const fn files_refused(&self) -> u64 {
        self.files.refused
    }

    /// What the processes took that read symbols.
    pub fn reader_cost(&self) -> Option<ReaderCost> {
        self.namer.cost()
    }

    /// Frames of a stack, innermost first.
    pub fn frames(&self, id: u32) -> Vec<&Symbol> {
        // A stack's id is its index.
        let frames = self.stacks.get(id as usize).map(|stack| stack.frames.as_slice()).unwrap_or_default();
        frames.iter().filter_map(|frame| self.symbols.get(*frame as usize)).collect()
    }

    /// All stacks and symbols so far.
    pub fn snapshot(&self) -> (Vec<Stack>, Vec<Symbol>) {
        (self.stacks.clone(), self.symbols.clone())
    }
}

/// A frame between the traced event and our program.
fn is_tracing(name: &str) -> bool {
    ["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "__bpf_prog_"]
        .iter()
        .any(|p| name.starts_with(p))
}

fn intern(
    symbols: &mut Vec<Symbol>,
    by_place: &mut HashMap<Place, u32>,
    place: Place,
    symbol: impl FnOnce() -> Symbol,
) -> u32 {
    *by_place.entry(place).or_insert_with(|| {
        symbols.push(symbol());
        symbols.len() as u32 - 1
    })
}

#[cfg(test)]
mod tests;
