//! The tables of the lists: a column is a title, how it takes the room there is, and what it says of a row.

use crate::analysis::cgroups::CgroupRow;
use crate::analysis::files::FileRow;
use crate::analysis::mappings::MappingRow;
use crate::analysis::processes::ProcessRow;
use crate::analysis::regions::RegionRow;
use crate::analysis::stacks::StackRow;
use crate::render::document::{Cell, Fit};
use crate::render::units::{known, size, unsigned};

pub const FILES: &[Cell<FileRow>] = &[
    ("BYTES", Fit::Number, |row| size(row.bytes)),
    ("FILE", Fit::Path, |row| row.path.clone().unwrap_or_else(|| row.inner_path.clone())),
    ("CHARGED TO", Fit::Path, |row| row.charged_to.clone()),
    ("FIRST TOUCH", Fit::Text, |row| {
        row.first_touch
            .as_ref()
            .map_or_else(|| "before the trace".to_owned(), |t| format!("{} ({})", t.comm, t.pid))
    }),
];

pub const CGROUPS: &[Cell<CgroupRow>] = &[
    ("CHARGED", Fit::Number, |row| known(row.bytes, size)),
    ("OWN", Fit::Number, |row| known(row.own, size)),
    ("ANON", Fit::Number, |row| unsigned(row.sources.get("anon").copied().unwrap_or(0))),
    ("FILE", Fit::Number, |row| {
        let file = ["file-clean", "file-dirty"].iter().filter_map(|source| row.sources.get(source));
        unsigned(file.sum())
    }),
    ("DYING BELOW", Fit::Number, |row| known(row.dying, |dying| dying.to_string())),
    ("CGROUP", Fit::Path, |row| row.path.clone()),
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
    ("STACK", Fit::Text, |row| row.path().collect::<Vec<_>>().join(" <- ")),
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

pub const REGIONS: &[Cell<RegionRow>] = &[
    ("RSS", Fit::Number, |row| unsigned(row.rss)),
    ("PSS", Fit::Number, |row| unsigned(row.pss)),
    ("ANON", Fit::Number, |row| unsigned(row.anonymous)),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("MAPPING", Fit::Path, |row| row.name.clone()),
];

pub const MAPPINGS: &[Cell<MappingRow>] = &[
    ("MAPPED", Fit::Number, |row| unsigned(row.bytes)),
    ("CALLS", Fit::Number, |row| row.calls.to_string()),
    ("KIND", Fit::Name, |row| row.kind.clone()),
    ("STACK", Fit::Text, |row| row.frames.join(" <- ")),
];
