//! The sections of `show`, in the order in which they stand.

use super::lists::{self, Extent};
use super::tables::{CGROUPS, MAPPINGS};
use super::{Manner, cost, frames, hooks, plane, read_at, run};
use crate::document::{Document, Table};
use crate::{charges, cuda, engine_run, memory_queries, process_env, user_stacks};
use spark_trace_analysis::attribution::Report;
use spark_trace_analysis::attribution::answer::is_worth_a_word;
use spark_trace_analysis::mappings::MappingRow;
use spark_trace_analysis::passing::Stack;
use spark_trace_analysis::signed::signed;
use spark_trace_analysis::stacks::StackRow;
use spark_trace_analysis::whose::Whose;
use spark_trace_recording::units::{seconds, unsigned};
use spark_trace_recording::word::Word;

#[derive(Debug)]
pub struct Section {
    /// For command lines.
    pub name: &'static str,
    pub about: &'static str,
    /// Whether it is part of the first screen.
    pub is_first: fn(&Report) -> bool,
    pub write: fn(&mut Document, &Report, Manner),
}

impl Section {
    pub fn has_anything(&self, report: &Report) -> bool {
        let mut document = Document::default();
        (self.write)(&mut document, report, Manner::default());
        !document.blocks.is_empty()
    }
}

pub const SECTIONS: &[Section] = &[
    Section {
        name: "target",
        about: "Memory charged to the target's cgroups, by source",
        is_first: |_| true,
        write: |document, report, manner| {
            report.planes.cgroup.iter().for_each(|plane| self::plane(document, report, plane, manner.brief));
        },
    },
    Section {
        name: "gpu",
        about: "Memory of each GPU, and its processes",
        is_first: has_gpu_memory,
        write: |document, report, manner| {
            report.planes.devices.iter().for_each(|plane| self::plane(document, report, plane, manner.brief));
        },
    },
    Section {
        name: "machine",
        about: "Memory in use on the machine, by source",
        is_first: |report| report.target.is_whole_machine() || report.planes.cgroup.is_none(),
        write: |document, report, manner| {
            report.planes.system.iter().for_each(|plane| self::plane(document, report, plane, manner.brief));
        },
    },
    Section {
        name: "cuda",
        about: "Memory allocated through the CUDA driver, by caller",
        is_first: |_| true,
        write: |document, report, _| {
            let started_ns = report.target.started_ns;
            report.cuda.iter().for_each(|cuda| cuda::in_use(document, cuda, started_ns));
            if report.cuda.is_some() {
                user_stacks(document, report);
            }
        },
    },
    Section {
        name: "engine",
        about: "The inference engine: its stages, what its device memory is for, figures of its log",
        is_first: |_| true,
        write: |document, report, manner| {
            let started_ns = report.target.started_ns;
            report.engine.iter().for_each(|run| engine_run::show(document, run, started_ns, manner.brief));
        },
    },
    Section {
        name: "cgroups",
        about: "Cgroups, each including its descendants",
        is_first: |_| true,
        write: cgroups,
    },
    Section {
        name: "processes",
        about: "Processes and their resident memory",
        is_first: |_| true,
        write: |document, report, _| {
            lists::processes(document, report);
        },
    },
    Section { name: "files", about: "Page cache by file", is_first: has_files, write: files },
    Section {
        name: "kernel",
        about: "Pages of the kernel and of drivers, by stack",
        is_first: has_kernel_pages,
        write: stacks,
    },
    Section {
        name: "mappings",
        about: "Resident memory by mapping, and the largest mapping calls",
        is_first: |_| true,
        write: mappings,
    },
    Section {
        name: "tmpfs",
        about: "File systems in memory",
        is_first: has_shared_memory,
        write: |document, report, manner| lists::tmpfs(document, report, extent(manner)),
    },
    Section {
        name: "charges",
        about: "Charges to the target's cgroups, by stack",
        is_first: never,
        write: charged,
    },
    Section {
        name: "driver",
        about: "Memory requested of the NVIDIA driver",
        is_first: never,
        write: driver_allocs,
    },
    Section {
        name: "queries",
        about: "The memory queries of the target, and their answers",
        is_first: never,
        write: |document, report, _| {
            let started_ns = report.target.started_ns;
            report.queries.iter().for_each(|queries| memory_queries::show(document, queries, started_ns));
        },
    },
    Section {
        name: "libraries",
        about: "CUDA libraries that were watched, contexts and modules",
        is_first: never,
        write: |document, report, _| {
            report.cuda.iter().for_each(|cuda| cuda::libraries(document, cuda));
        },
    },
    Section {
        name: "environment",
        about: "Environment, rights and limits of the processes",
        is_first: never,
        write: |document, report, _| process_env::contexts(document, &report.contexts),
    },
    Section { name: "run", about: "What ran, how long, and on which machine", is_first: never, write: run },
    Section { name: "hooks", about: "Hooks that do not run, and why", is_first: never, write: hooks },
    Section { name: "cost", about: "Cost of the tracing itself", is_first: never, write: cost },
];

const fn never(_: &Report) -> bool {
    false
}

fn has_gpu_memory(report: &Report) -> bool {
    let rows = report.planes.devices.iter().flat_map(|plane| &plane.sources);
    let mut rows = rows.filter(|row| report.target.is_whole_machine() || row.source != "gpu-other-processes");
    rows.any(|row| {
        row.source.starts_with("gpu-") && row.source != "gpu-reserved" && row.bytes_at_peak > Some(0)
    })
}

/// The target has shared memory, which may lie in such a file system.
fn has_shared_memory(report: &Report) -> bool {
    let plane = report.planes.cgroup.as_ref().or(report.planes.system.as_ref());
    let rows = plane.iter().flat_map(|plane| &plane.sources).filter(|row| row.source.starts_with("shmem"));
    is_much(report, rows.filter_map(|row| row.bytes))
}

fn has_files(report: &Report) -> bool {
    let rows = report.files.iter().filter(|row| row.whose == Whose::Target);
    is_much(report, rows.map(|row| row.bytes))
}

fn has_kernel_pages(report: &Report) -> bool {
    let rows = report.stacks.iter().filter(|row| row.is_listed());
    is_much(report, rows.map(|row| signed(row.bytes)))
}

/// One of these is as large as what the answer names.
fn is_much(report: &Report, mut bytes: impl Iterator<Item = i64>) -> bool {
    let all = report.answer.as_ref().and_then(|answer| answer.bytes);
    bytes.any(|bytes| is_worth_a_word(bytes, all))
}

/// The time that the lists are about.
fn at(report: &Report) -> String {
    seconds(report.details_at_ns.saturating_sub(report.target.started_ns))
}

/// The same, and when what hooks count was read.
fn stored(report: &Report) -> String {
    read_at(report, report.details_instant.as_ref())
}

/// A heading with the time that a list is about.
fn after(report: &Report, what: &str) -> String {
    if report.target.is_snapshot() { what.to_owned() } else { format!("{what}, after {}", at(report)) }
}

fn extent(manner: Manner) -> Extent {
    Extent { most: None, all: manner.all }
}

fn cgroups(document: &mut Document, report: &Report, _manner: Manner) {
    // Of a run each root has its plane; a machine has many more.
    if report.cgroups.len() > 1 {
        let heading = after(report, "Cgroups, each including its descendants");
        document.section(heading, Table::of(CGROUPS, &report.cgroups));
    }
}

fn files(document: &mut Document, report: &Report, manner: Manner) {
    lists::files(document, report, &stored(report), extent(manner));
}

fn stacks(document: &mut Document, report: &Report, manner: Manner) {
    lists::stacks(document, report, &stored(report), extent(manner));
    if !manner.brief {
        let rows = report.stacks.iter().filter(|row| row.is_listed());
        let titled = |row: &StackRow| (format!("{} {}", unsigned(row.bytes), row.source), row.bytes);
        frames::largest(document, rows.map(|row| (titled(row), &row.frames[..])), Stack::Kernel);
    }
}

fn driver_allocs(document: &mut Document, report: &Report, _manner: Manner) {
    let heading =
        format!("Requested of the NVIDIA driver since the trace began, in use after {}", stored(report));
    document.section(heading, Table::of(charges::DRIVER_ALLOCS, &report.driver_allocs));
}

fn charged(document: &mut Document, report: &Report, _manner: Manner) {
    if let Some(charged) = &report.charges {
        charges::show(document, charged, &read_at(report, charged.instant.as_ref()));
    }
}

/// By which way the callers above, or below, were found.
fn user_stacks(document: &mut Document, report: &Report) {
    report.user_stacks.iter().for_each(|stacks| document.line(user_stacks::sentence(stacks)));
}

fn mappings(document: &mut Document, report: &Report, manner: Manner) {
    lists::regions(document, report, None);
    let heading = after(report, "Large mappings by user stack");
    document.section(heading, Table::of(MAPPINGS, &report.mappings));
    if !manner.brief {
        user_stacks(document, report);
        let titled = |row: &MappingRow| {
            let way = user_stacks::of_one(row.way.as_ref().and_then(Word::known));
            (format!("{} {}{way}", unsigned(row.bytes), row.kind), row.bytes)
        };
        let rows = report.mappings.iter().map(|row| (titled(row), &row.frames[..]));
        frames::largest(document, rows, Stack::User);
    }
}
