//! The tables of the lists: a column is a title, how it takes the room there is, and what it says of a row.

use crate::document::{Cell, Fit};
use spark_trace_analysis::cgroups::CgroupRow;
use spark_trace_analysis::files::FileRow;
use spark_trace_analysis::mappings::MappingRow;
use spark_trace_analysis::passing::{self, Stack};
use spark_trace_analysis::processes::ProcessRow;
use spark_trace_analysis::regions::RegionRow;
use spark_trace_analysis::stacks::StackRow;
use spark_trace_analysis::tmpfs::TmpfsRow;
use spark_trace_recording::units::{delta, known, size, unsigned};

pub const FILES: &[Cell<FileRow>] = &[
    ("BYTES", Fit::Number, |row| size(row.bytes)),
    ("FILE", Fit::Path, |row| row.shown.clone()),
    ("CHARGED TO", Fit::Path, |row| row.payer.clone()),
    // Of a file that has only lost pages nobody was seen to add one.
    ("FIRST TOUCH", Fit::Text, |row| {
        known(row.first_touch.as_ref(), |touch| format!("{} ({})", touch.comm, touch.pid))
    }),
];

/// Of files that were cached before anybody looked.
pub const FILES_CACHED: &[Cell<FileRow>] = &[
    ("BYTES", Fit::Number, |row| size(row.bytes)),
    ("FILE", Fit::Path, |row| row.shown.clone()),
    ("CHARGED TO", Fit::Path, |row| row.payer.clone()),
];

pub const CGROUPS: &[Cell<CgroupRow>] = &[
    ("CHARGED", Fit::Number, |row| known(row.bytes, size)),
    ("OWN", Fit::Number, |row| known(row.own, size)),
    ("ANON", Fit::Number, |row| unsigned(row.sources.get("anon").copied().unwrap_or(0))),
    ("FILE", Fit::Number, |row| {
        let file = ["file-clean", "file-dirty"].iter().filter_map(|source| row.sources.get(source));
        unsigned(file.sum())
    }),
    ("SHMEM", Fit::Number, |row| unsigned(row.sources.get("shmem").copied().unwrap_or(0))),
    ("DYING BELOW", Fit::Number, |row| known(row.dying, |dying| dying.to_string())),
    ("CGROUP", Fit::Path, |row| row.shown.clone()),
];

pub const STACKS: &[Cell<StackRow>] = &[
    ("BYTES", Fit::Number, |row| unsigned(row.bytes)),
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("CHARGED", Fit::Name, |row| {
        match (row.charged, row.charged_by_object) {
            (true, _) => "yes",
            (false, true) => "not known",
            (false, false) => "no",
        }
        .to_owned()
    }),
    ("FOR", Fit::Text, |row| row.label.clone()),
    ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::Kernel)),
];

pub const PROCESSES: &[Cell<ProcessRow>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("RSS PEAK", Fit::Number, |row| known(row.rss_peak, unsigned)),
    ("ANON", Fit::Number, |row| known(row.at_peak.and_then(|split| split.rss_anon), unsigned)),
    ("FILE", Fit::Number, |row| known(row.at_peak.and_then(|split| split.rss_file), unsigned)),
    ("SHMEM", Fit::Number, |row| known(row.at_peak.and_then(|split| split.rss_shmem), unsigned)),
    ("EXIT", Fit::Name, |row| row.exit.clone().unwrap_or_default()),
];

/// At one instant.
pub const PROCESSES_NOW: &[Cell<ProcessRow>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("ANON", Fit::Number, |row| known(row.at.and_then(|split| split.rss_anon), unsigned)),
    ("FILE", Fit::Number, |row| known(row.at.and_then(|split| split.rss_file), unsigned)),
    ("SHMEM", Fit::Number, |row| known(row.at.and_then(|split| split.rss_shmem), unsigned)),
    ("SWAP", Fit::Number, |row| known(row.at.and_then(|split| split.swap), unsigned)),
    ("CGROUP", Fit::Path, |row| row.cgroup_shown.clone()),
];

pub const TMPFS: &[Cell<TmpfsRow>] = &[
    ("MOUNTED AT", Fit::Path, |row| row.shown.clone()),
    ("START", Fit::Number, |row| known(row.bytes_at_start, unsigned)),
    ("END", Fit::Number, |row| known(row.bytes_at_end, unsigned)),
    ("GROWTH", Fit::Number, |row| known(row.growth(), delta)),
    ("LARGEST", Fit::Number, |row| known(row.largest(), |file| unsigned(file.bytes))),
    ("FILE", Fit::Path, |row| row.largest().map(|file| file.path.clone()).unwrap_or_default()),
];

/// Where it was read during the run as well, as of a container that is gone at the end.
pub const TMPFS_PEAK: &[Cell<TmpfsRow>] = &[
    ("MOUNTED AT", Fit::Path, |row| row.shown.clone()),
    ("START", Fit::Number, |row| known(row.bytes_at_start, unsigned)),
    ("HIGHEST", Fit::Number, |row| known(row.highest(), unsigned)),
    ("END", Fit::Number, |row| known(row.bytes_at_end, unsigned)),
    ("LARGEST", Fit::Number, |row| known(row.largest(), |file| unsigned(file.bytes))),
    ("FILE", Fit::Path, |row| row.largest().map(|file| file.path.clone()).unwrap_or_default()),
];

pub const TMPFS_NOW: &[Cell<TmpfsRow>] = &[
    ("MOUNTED AT", Fit::Path, |row| row.shown.clone()),
    ("BYTES", Fit::Number, |row| known(row.highest(), unsigned)),
    ("LARGEST", Fit::Number, |row| known(row.largest(), |file| unsigned(file.bytes))),
    ("FILE", Fit::Path, |row| row.largest().map(|file| file.path.clone()).unwrap_or_default()),
];

pub const REGIONS: &[Cell<RegionRow>] = &[
    ("RSS", Fit::Number, |row| unsigned(row.rss)),
    ("PSS", Fit::Number, |row| known(row.pss, unsigned)),
    ("ANON", Fit::Number, |row| unsigned(row.anonymous)),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("MAPPING", Fit::Path, RegionRow::shown),
];

pub const MAPPINGS: &[Cell<MappingRow>] = &[
    ("MAPPED", Fit::Number, |row| unsigned(row.bytes)),
    ("CALLS", Fit::Number, |row| row.calls.to_string()),
    ("KIND", Fit::Name, |row| row.kind.clone()),
    ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::User)),
];
