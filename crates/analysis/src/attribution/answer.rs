//! The answer that `show` begins with: who took how much, when, by which largest paths, and what no counter explains.

use crate::signed::signed;
use serde::Serialize;
use spark_trace_common::source::UNATTRIBUTED;

use crate::attribution::{PlaneReport, Report};
use crate::files::FileRow;
use crate::mappings::MappingRow;
use crate::passing::{self, Stack};
use crate::stacks::StackRow;
use crate::view::Scope;
use crate::whose::Whose;
use spark_trace_recording::TargetKind;
use spark_trace_recording::{Container, Target};

/// Items of a list in the answer.
const MOST: usize = 3;
/// Kinds of memory that the answer names.
const MOST_PARTS: usize = 4;
/// What is smaller than this part of the whole is not named.
const LEAST_PERCENT: i128 = 1;
/// A call site is known by this many frames.
const FRAMES: usize = 2;
/// More address space than this part of the anonymous memory that there is was mapped and not touched.
const TOUCHED_PERCENT: i128 = 105;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The plane that it is about: the target's own, that of the GPU which holds most of it, or the machine's.
    pub plane: Scope,
    /// NVML's index of a device plane's GPU.
    pub device: Option<u32>,
    pub at_ns: u64,
    /// At the requested instant: the plane's counter; of a GPU what the target holds on it.
    pub bytes: Option<i64>,
    /// From the start to that instant; absent where the plane started from nothing, or where the answer has no counter.
    pub growth: Option<i64>,
    /// What kinds of memory it is, the most first.
    pub parts: Vec<Part>,
    pub largest: Vec<Largest>,
    /// What the plane's counters leave unexplained, and its share of them in percent.
    pub unexplained: Option<i64>,
    pub unexplained_percent: Option<f64>,
}

/// One kind of memory in everyday words: several sources may be one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    pub what: &'static str,
    pub bytes: i64,
}

/// One of the places that hold the most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Largest {
    pub bytes: i64,
    pub how: How,
    /// A call site, innermost frame first; a path or the name of a mapping.
    pub place: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Address space, mapped by a call site.
    Mapped,
    /// Resident in a mapping of this name.
    Resident,
    /// Page cache of a file.
    Cached,
    /// Pages of the kernel, allocated by a path in it.
    Kernel,
    /// Allocated through CUDA.
    Cuda,
}

/// Sources in everyday words.
const WORDS: &[(&str, &str)] = &[
    ("anon", "anonymous memory"),
    ("anon-pinned", "pinned memory"),
    ("anon-unmapped", "memory that no process maps any more"),
    ("shmem", "shared memory"),
    ("shmem-pinned", "pinned memory"),
    ("file-clean", "page cache"),
    ("file-dirty", "page cache"),
    ("swap-cache", "swap cache"),
    ("slab-reclaimable", "kernel memory"),
    ("slab-unreclaimable", "kernel memory"),
    ("kernel-stack", "kernel memory"),
    ("page-tables", "kernel memory"),
    ("percpu", "kernel memory"),
    ("vmalloc", "kernel memory"),
    ("sock", "kernel memory"),
    ("kernel-other", "kernel memory"),
    ("hugetlb", "huge pages of the HugeTLB pool"),
    ("nvidia-sysmem", "NVIDIA driver"),
    ("nvidia-managed", "NVIDIA managed memory"),
    ("nvidia-pool", "NVIDIA driver"),
    ("gpu-allocated", "allocated through CUDA"),
    ("gpu-context", "CUDA contexts"),
    ("gpu-before", "taken before the trace began"),
    ("gpu-shared-process", "allocations on an unknown GPU"),
];

/// Sources of a device plane that are not the target's.
const OTHERS: &[&str] = &["gpu-other-processes", "gpu-reserved", UNATTRIBUTED];

/// The answer of a report, where it has any plane. The report's lists must be whole and in order.
pub fn answer(report: &Report) -> Option<Answer> {
    let planes = &report.planes;
    let host = match report.target.is_whole_machine() {
        true => planes.system.as_ref(),
        false => planes.cgroup.as_ref().or(planes.system.as_ref()),
    };
    let gpu = planes.devices.iter().max_by_key(|plane| of_target(plane));
    // A machine as a whole has its own memory.
    let gpu = gpu.filter(|_| !report.target.is_whole_machine());
    let charged = host.and_then(|plane| plane.level.expected).unwrap_or(0);
    match (gpu.filter(|plane| of_target(plane) > charged), host) {
        (Some(plane), _) => Some(on_gpu(report, plane)),
        (None, Some(plane)) => Some(on_host(report, plane)),
        (None, None) => None,
    }
}

/// What the target holds on a device.
fn of_target(plane: &PlaneReport) -> i64 {
    let rows = plane.sources.iter().filter(|row| !OTHERS.contains(&row.source));
    rows.filter_map(|row| row.bytes).fold(0, i64::saturating_add)
}

fn on_host(report: &Report, plane: &PlaneReport) -> Answer {
    let bytes = plane.level.expected.or(Some(plane.level.attributed));
    let mut largest = anonymous(report, plane);
    largest.extend(report.files.iter().filter(|row| row.whose == Whose::Target).filter_map(cached));
    let on_plane = |row: &&StackRow| {
        row.whose == Whose::Target && (plane.plane == Scope::System || row.charged || row.charged_by_object)
    };
    largest.extend(report.stacks.iter().filter(on_plane).filter_map(kernel));
    new(plane, bytes, largest, None)
}

fn on_gpu(report: &Report, plane: &PlaneReport) -> Answer {
    let stacks = report.cuda.iter().flat_map(|cuda| &cuda.stacks);
    let device = stacks.filter(|row| matches!(row.kind.as_str(), "device" | "async" | "physical"));
    let largest = device.filter_map(|row| {
        let bytes = signed(row.live?);
        let place = if row.caller.label.is_empty() { row.function.clone() } else { row.caller.label.clone() };
        Some(Largest { bytes, how: How::Cuda, place })
    });
    new(plane, Some(of_target(plane)), largest.collect(), Some(OTHERS))
}

fn new(
    plane: &PlaneReport,
    bytes: Option<i64>,
    mut largest: Vec<Largest>,
    others: Option<&[&str]>,
) -> Answer {
    let started = plane.sources.iter().any(|row| row.bytes_at_start.is_some_and(|bytes| bytes > 0));
    largest.retain(|item| is_worth_a_word(item.bytes, bytes));
    largest.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    largest.truncate(MOST);
    Answer {
        plane: plane.plane,
        device: plane.device.as_ref().map(|device| device.index),
        at_ns: plane.at_ns,
        bytes,
        growth: plane.growth.expected.filter(|_| started && others.is_none()),
        parts: parts(plane, bytes, others.unwrap_or(&[UNATTRIBUTED])),
        largest,
        unexplained: plane.level.residual,
        unexplained_percent: plane.level.residual_percent,
    }
}

fn parts(plane: &PlaneReport, all: Option<i64>, others: &[&str]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for row in plane.sources.iter().filter(|row| !others.contains(&row.source)) {
        let Some(bytes) = row.bytes.filter(|&bytes| bytes > 0) else { continue };
        let what =
            WORDS.iter().find(|(source, _)| *source == row.source).map_or(row.source, |(_, what)| what);
        match parts.iter_mut().find(|part| part.what == what) {
            Some(part) => part.bytes = part.bytes.saturating_add(bytes),
            None => parts.push(Part { what, bytes }),
        }
    }
    parts.retain(|part| is_worth_a_word(part.bytes, all));
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts.truncate(MOST_PARTS);
    parts
}

/// Not less than a hundredth of `all`, where that is known.
pub fn is_worth_a_word(bytes: i64, all: Option<i64>) -> bool {
    bytes > 0 && all.is_none_or(|all| i128::from(bytes) * 100 >= i128::from(all) * LEAST_PERCENT)
}

/// Anonymous memory by who mapped it. Where more was mapped than there is, by the mappings in which it is resident:
/// what was mapped says nothing then.
fn anonymous(report: &Report, plane: &PlaneReport) -> Vec<Largest> {
    let level = |source| plane.sources.iter().find(|row| row.source == source).and_then(|row| row.bytes);
    let there = ["anon", "anon-pinned"].into_iter().filter_map(level).fold(0, i64::saturating_add);
    let rows = report.mappings.iter().filter(|row| matches!(row.kind.as_str(), "anon" | "heap"));
    let mapped: Vec<_> = rows.filter_map(mapped).collect();
    let fits = |item: &Largest| i128::from(item.bytes) * 100 <= i128::from(there) * TOUCHED_PERCENT;
    // An allocator's own function says nothing of its caller: a walk without frame pointers may end there.
    let names_a_caller = |item: &Largest| !passing::is_passing(&item.place, Stack::User);
    if mapped.iter().max_by_key(|item| item.bytes).is_some_and(names_a_caller) && mapped.iter().all(fits) {
        return mapped;
    }
    let regions = report.regions.iter().filter(|row| row.anonymous > 0 && signed(row.anonymous) <= there);
    let resident = regions.map(|row| Largest {
        bytes: signed(row.anonymous),
        how: How::Resident,
        place: format!("{} of {}", row.name, row.comm),
    });
    resident.collect()
}

fn mapped(row: &MappingRow) -> Option<Largest> {
    let place = site(&row.frames, Stack::User);
    (row.bytes > 0 && !place.is_empty()).then(|| Largest {
        bytes: signed(row.bytes),
        how: How::Mapped,
        place,
    })
}

fn cached(row: &FileRow) -> Option<Largest> {
    let place = row.inner_path.clone();
    (row.bytes > 0).then_some(Largest { bytes: row.bytes, how: How::Cached, place })
}

/// Page cache and pages of processes are known by what they are, not by the kernel's path.
fn kernel(row: &StackRow) -> Option<Largest> {
    let is_kernel = WORDS.iter().any(|(source, what)| *source == row.source && *what == "kernel memory");
    let place = site(&row.frames, Stack::Kernel);
    let is_shown = row.bytes > 0 && !place.is_empty() && (is_kernel || row.source.starts_with("nvidia-"));
    is_shown.then(|| Largest { bytes: signed(row.bytes), how: How::Kernel, place })
}

fn site(frames: &[String], stack: Stack) -> String {
    let callers = passing::callers(frames, stack);
    callers.iter().take(FRAMES).map(String::as_str).collect::<Vec<_>>().join(" <- ")
}

/// The target in a few words: a container by its name, a command by its command line, with at most `most` characters.
pub fn who(target: &Target, most: usize) -> String {
    if target.is_whole_machine() {
        return "the machine".to_owned();
    }
    if let Some(name) = container_names(target) {
        let containers = if target.containers.len() > 1 { "containers" } else { "container" };
        return format!("{containers} {name}");
    }
    if target.argv.is_empty() {
        return match target.cgroups.iter().find(|cgroup| cgroup.root) {
            Some(cgroup) if target.kind == TargetKind::Cgroup => format!("cgroup {}", cgroup.path),
            _ => format!("the {}", target.kind),
        };
    }
    command_line(&target.argv, most)
}

/// Names of the target's containers, where it is containers: of more than two the first two and how many more.
pub fn container_names(target: &Target) -> Option<String> {
    let first = target.container.as_ref()?;
    let name = |container: &Container| container.name.clone().unwrap_or_else(|| container.id.clone());
    Some(match &target.containers[..] {
        [] | [_] => name(first),
        [one, other] => format!("{} and {}", name(one), name(other)),
        [one, other, more @ ..] => format!("{}, {} and {} more", name(one), name(other), more.len()),
    })
}

/// A command line of at most about `most` characters; of the words that do not fit it says how many they are.
pub fn command_line(argv: &[String], most: usize) -> String {
    let mut line = String::new();
    for (index, word) in argv.iter().enumerate() {
        let length = line.chars().count() + usize::from(index > 0) + word.chars().count();
        if index > 0 && length > most {
            return format!("{line} … ({} more)", argv.len() - index);
        }
        if index > 0 {
            line.push(' ');
        }
        match word.char_indices().nth(most) {
            Some((end, _)) => line = line + word.get(..end).unwrap_or(word) + "…",
            None => line += word,
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution;
    use crate::instant_spec::InstantSpec;
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    const ONE_MIB: i64 = MIB as i64;

    #[test]
    fn the_answer_is_about_the_targets_own_plane() {
        let answer = attribution::report(&testing::container(), InstantSpec::Peak).answer.unwrap();
        assert_eq!((answer.plane, answer.bytes), (Scope::Cgroup, Some(1829 * ONE_MIB)));
        let parts: Vec<_> = answer.parts.iter().map(|part| (part.what, part.bytes / ONE_MIB)).collect();
        assert_eq!(parts, [("page cache", 1010), ("anonymous memory", 810)]);
        assert_eq!(answer.unexplained, Some(ONE_MIB));
        let largest: Vec<_> = answer.largest.iter().map(|item| (item.how, item.bytes / ONE_MIB)).collect();
        assert_eq!(largest, [(How::Cached, 980), (How::Mapped, 810), (How::Cached, 20)]);
        assert_eq!(answer.largest[1].place, "arena_alloc [python3]");
    }

    #[test]
    fn untouched_mappings_do_not_count_as_taken() {
        let mut recording = testing::container();
        for mapping in &mut recording.provenance.mappings {
            mapping.length *= 10;
        }
        let answer = attribution::report(&recording, InstantSpec::Peak).answer.unwrap();
        assert!(answer.largest.iter().all(|item| item.how != How::Mapped), "{:?}", answer.largest);
        assert!(answer.largest.iter().any(|item| item.place == "[heap] of python3"), "{:?}", answer.largest);
    }

    #[test]
    fn an_allocators_own_function_is_nobodys_call_site() {
        let mut recording = testing::container();
        for symbol in &mut recording.provenance.symbols {
            if symbol.name.as_deref() == Some("arena_alloc") {
                (symbol.name, symbol.module) = (Some("sbrk".into()), Some("/usr/lib/libc.so.6".into()));
            }
        }
        let answer = attribution::report(&recording, InstantSpec::Peak).answer.unwrap();
        assert!(answer.largest.iter().all(|item| item.how != How::Mapped), "{:?}", answer.largest);
        assert!(answer.largest.iter().any(|item| item.place == "[heap] of python3"), "{:?}", answer.largest);
    }

    #[test]
    fn a_gpu_that_holds_most_is_what_the_answer_is_about() {
        let answer = attribution::report(&testing::gpus(), InstantSpec::Peak).answer.unwrap();
        assert_eq!(
            (answer.plane, answer.device, answer.bytes),
            (Scope::Device, Some(0), Some(30_000 * ONE_MIB))
        );
        assert_eq!(answer.parts[0].what, "CUDA contexts");
    }

    #[test]
    fn a_machine_is_answered_for_as_a_whole() {
        let mut recording = testing::container();
        recording.target.kind = "system".into();
        let answer = attribution::report(&recording, InstantSpec::Peak).answer.unwrap();
        assert_eq!(answer.plane, Scope::System);
        assert!(answer.growth.is_some_and(|growth| growth > 0));
        assert_eq!(who(&recording.target, 40), "the machine");
    }

    #[test]
    fn nothing_recorded_has_no_answer() {
        assert!(attribution::report(&testing::empty(), InstantSpec::Peak).answer.is_none());
    }

    #[test]
    fn long_command_lines_say_how_much_is_left_out() {
        let argv = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(command_line(&argv(&["python3", "np.py"]), 40), "python3 np.py");
        let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
        let line = command_line(&many, 40);
        assert!(
            line.starts_with("0 1 2 ") && line.ends_with(" more)") && line.chars().count() < 60,
            "{line}"
        );
        let long = command_line(&argv(&[&"x".repeat(4000), "y"]), 40);
        assert!(long.chars().count() < 60, "{long}");
        assert_eq!(command_line(&[], 40), "");
    }
}
