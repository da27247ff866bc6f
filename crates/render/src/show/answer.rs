//! The answer of `show` in sentences: at most five lines of 80 columns.

use crate::containers;
use crate::document::Document;
use crate::limits;
use crate::memory_use;
use spark_trace_analysis::attribution::Report;
use spark_trace_analysis::attribution::answer::{Answer, How, Largest, who};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::view::Scope;
use spark_trace_common::hook::{HOOKS, NOT_ON_A_WHOLE_MACHINE};
use spark_trace_recording::units::{UNKNOWN, delta, known, seconds, share, size};

/// Characters of a name in the answer.
const NAME: usize = 48;
/// Characters of a sentence: two lines of 80 columns, with what wrapping leaves unused of them.
const SENTENCE: usize = 150;

pub fn write(document: &mut Document, report: &Report) {
    sentences(document, report);
    // What nothing was traced of has no row of its own for this.
    for used in report.memory_use.iter().filter(|_| report.target.is_snapshot()) {
        memory_use::lines(used).into_iter().for_each(|line| document.line(line));
    }
    if let Some(line) = containers::line(&report.target) {
        document.line(line);
    }
    let unseen = report.health.hooks.iter().filter(|hook| hook.reason.as_deref().is_some_and(is_spared));
    for hook in unseen.filter_map(|hook| HOOKS.iter().find(|row| row.name == hook.name)) {
        document.line(format!("Off, so as not to slow down the machine (--system-calls): {}.", hook.without));
    }
    for warning in &report.warnings {
        document.warning(warning.to_string());
    }
}

/// Whether a hook was left out so that the machine's processes do not pay for it.
fn is_spared(reason: &str) -> bool {
    reason.contains(NOT_ON_A_WHOLE_MACHINE)
}

pub fn sentences(document: &mut Document, report: &Report) {
    match &report.answer {
        None => document.heading(format!("{}: no reading of its memory is recorded", subject(report))),
        Some(answer) => {
            document.heading(headline(report, answer));
            let items = within("Largest: ".to_owned(), answer.largest.iter().map(largest), "; ");
            items.into_iter().for_each(|items| document.line(format!("{items}.")));
            let kernel = kernel_peak(report, answer);
            let kernel =
                kernel.map_or_else(String::new, |peak| format!(" The kernel's own peak: {}.", size(peak)));
            document.line([unexplained(answer), kernel, limited(report), ran(report)].concat());
        }
    }
}

fn headline(report: &Report, answer: &Answer) -> String {
    let who = subject(report);
    let after = seconds(answer.at_ns.saturating_sub(report.target.started_ns));
    let has = match (answer.plane, report.target.is_whole_machine()) {
        (Scope::System, true) => "had",
        // Its own cgroup was not read.
        (Scope::System, false) => "ran while the machine had",
        _ => "took",
    };
    let on = match (answer.plane, answer.device) {
        (Scope::Device, Some(index)) => format!(" of GPU {index}"),
        (Scope::System, _) => " in use".to_owned(),
        _ => String::new(),
    };
    let when = match report.at {
        _ if report.target.is_snapshot() => String::new(),
        InstantSpec::Peak => format!(" at its peak, {after} after the start"),
        InstantSpec::End => format!(" at the end, {after} after the start"),
        InstantSpec::Kv(_) => format!(" at the {}, {after} after the start", report.at.of_a_run()),
        InstantSpec::SinceStart(_) | InstantSpec::Time(_) => format!(" {after} after the start"),
    };
    let growth =
        answer.growth.map_or_else(String::new, |growth| format!(" ({} since the start)", delta(growth)));
    let least = if kernel_peak(report, answer).is_some() { "at least " } else { "" };
    let took = format!("{who} {has} {least}{}{on}{when}{growth}", known(answer.bytes, size));
    let parts = answer.parts.iter().map(|part| format!("{} {}", size(part.bytes), part.what));
    within(format!("{took}: "), parts, ", ").unwrap_or(took)
}

/// The peak that the kernel kept of the target's cgroup, where it is clearly above the highest reading.
fn kernel_peak(report: &Report, answer: &Answer) -> Option<i64> {
    let (Scope::Cgroup, InstantSpec::Peak) = (answer.plane, report.at) else { return None };
    let [root] = &report.planes.cgroup.as_ref()?.roots[..] else { return None };
    // That of an older cgroup may be from before the trace.
    report.target.cgroups.iter().find(|cgroup| cgroup.path == root.path)?.created_ns?;
    let (kernel, sampled) = (root.kernel_peak?, root.sampled_peak?);
    (kernel.saturating_sub(sampled) > (kernel / 50).max(1 << 20)).then(|| i64::try_from(kernel).ok())?
}

/// As many items after `start` as a sentence has room for, but one in any case; nothing where there are none.
fn within(start: String, mut items: impl Iterator<Item = String>, between: &str) -> Option<String> {
    let mut sentence = start + &items.next()?;
    for item in items {
        if sentence.chars().count() + between.len() + item.chars().count() > SENTENCE {
            break;
        }
        sentence = sentence + between + &item;
    }
    Some(sentence)
}

/// The target at the beginning of a sentence.
fn subject(report: &Report) -> String {
    let who = who(&report.target, NAME);
    if report.target.is_whole_machine() { "The machine".to_owned() } else { who }
}

fn largest(item: &Largest) -> String {
    let (bytes, place) = (size(item.bytes), &item.place);
    match item.how {
        How::Mapped => format!("{bytes} mapped by {}", beginning(place)),
        How::Resident => format!("{bytes} resident in {}", end(place)),
        How::Cached => format!("{bytes} cached of {}", end(place)),
        How::Kernel => format!("{bytes} in the kernel by {}", beginning(place)),
        How::Cuda => format!("{bytes} through CUDA by {}", beginning(place)),
    }
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn end(text: &str) -> String {
    match text.char_indices().rev().nth(NAME - 1) {
        Some((from, _)) if from > 0 => format!("…{}", text.get(from..).unwrap_or(text)),
        _ => text.to_owned(),
    }
}

fn unexplained(answer: &Answer) -> String {
    let Some(bytes) = answer.unexplained else { return "Unexplained: not known.".to_owned() };
    match known(answer.unexplained_percent, share) {
        share if share == UNKNOWN => format!("Unexplained: {}.", size(bytes)),
        share => format!("Unexplained: {} ({share}).", size(bytes)),
    }
}

/// The limit that was reached most often, in short: the target's table has all of it.
fn limited(report: &Report) -> String {
    let limit = report.limits.iter().max_by_key(|limit| limit.reached);
    limit.map_or_else(String::new, |limit| {
        let line = limits::line(limit, false);
        let short = line.split(';').next().unwrap_or(&line);
        format!(" Its {short}.")
    })
}

fn ran(report: &Report) -> String {
    let target = &report.target;
    if target.is_snapshot() {
        return " Nothing was traced: this is one instant.".to_owned();
    }
    let ran = seconds(target.ended_ns.saturating_sub(target.started_ns));
    match target.exit_code {
        Some(code) => format!(" Ran {ran}, exit code {code}."),
        None => format!(" Recorded for {ran}."),
    }
}
