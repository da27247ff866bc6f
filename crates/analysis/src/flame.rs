//! Bytes by stack, as flame graphs have them: outermost frame first, of one run or of two.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attribution::Report;
use spark_trace_recording::classify::base_name;

/// More stacks than anybody can distinguish in a picture; the others are one frame.
const MOST: usize = 400;

/// One kind of bytes. Kinds lie on different planes and are not summed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flame {
    /// For command lines and file formats.
    pub kind: &'static str,
    pub title: &'static str,
    /// Largest first. `a_bytes` is zero where only one run is looked at.
    pub rows: Vec<Row>,
    pub left_out: LeftOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    pub frames: Vec<String>,
    pub a_bytes: u64,
    pub b_bytes: u64,
}

/// What is not shown one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub rows: usize,
    pub a_bytes: u64,
    pub b_bytes: u64,
}

type Stacks = Vec<(Vec<String>, u64)>;

/// A kind of bytes.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub title: &'static str,
    /// What a report has of it.
    stacks: fn(&Report) -> Stacks,
}

pub const KINDS: &[Kind] = &[
    Kind { name: "pages", title: "Kernel and driver pages in use", stacks: pages },
    Kind { name: "charges", title: "Charged to the target's cgroups", stacks: charges },
    Kind { name: "cuda", title: "Allocated through the CUDA driver", stacks: cuda },
];

/// The graphs that have any bytes in them, of `b` or of both.
pub fn flames(a: Option<&Report>, b: &Report) -> Vec<Flame> {
    with_bytes(a, b, MOST)
}

/// The same of one run with every stack, for programs.
pub fn whole(report: &Report) -> Vec<Flame> {
    with_bytes(None, report, usize::MAX)
}

fn with_bytes(a: Option<&Report>, b: &Report, most: usize) -> Vec<Flame> {
    let all =
        KINDS.iter().map(|kind| flame(kind, a.map(kind.stacks).unwrap_or_default(), (kind.stacks)(b), most));
    all.filter(|flame| !flame.rows.is_empty()).collect()
}

fn flame(kind: &Kind, a: Stacks, b: Stacks, most: usize) -> Flame {
    let mut joined: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
    for (frames, bytes) in a {
        let (sum, _) = joined.entry(frames).or_default();
        *sum = sum.saturating_add(bytes);
    }
    for (frames, bytes) in b {
        let (_, sum) = joined.entry(frames).or_default();
        *sum = sum.saturating_add(bytes);
    }
    let rows = joined.into_iter().map(|(frames, (a_bytes, b_bytes))| Row { frames, a_bytes, b_bytes });
    let mut rows: Vec<_> = rows.filter(|row| row.a_bytes > 0 || row.b_bytes > 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.a_bytes.max(row.b_bytes)));
    let others = rows.split_off(rows.len().min(most));
    let sum = |bytes: fn(&Row) -> u64| others.iter().map(bytes).fold(0, u64::saturating_add);
    let left_out =
        LeftOut { rows: others.len(), a_bytes: sum(|row| row.a_bytes), b_bytes: sum(|row| row.b_bytes) };
    Flame { kind: kind.name, title: kind.title, rows, left_out }
}

/// Frames come innermost first. Builds of one kernel differ in how the compiler named clones of a function.
fn outermost_first(root: &str, frames: &[String]) -> Vec<String> {
    let base = |frame: &String| match frame.split_once(" [") {
        Some((name, module)) => format!("{} [{module}", base_name(name)),
        None => base_name(frame).to_owned(),
    };
    let frames = frames.iter().rev().map(base);
    std::iter::once(root.to_owned()).chain(frames).collect()
}

fn pages(report: &Report) -> Stacks {
    let rows = report.stacks.iter();
    rows.map(|row| (outermost_first(row.source, &row.frames), row.bytes)).collect()
}

fn charges(report: &Report) -> Stacks {
    let rows = report.charges.iter().flat_map(|charges| &charges.stacks);
    rows.map(|row| (outermost_first(row.class, &row.frames), row.bytes_charged)).collect()
}

fn cuda(report: &Report) -> Stacks {
    let rows = report.cuda.iter().flat_map(|cuda| &cuda.stacks);
    let of = |row: &crate::cuda::AllocRow| {
        // The root says of what kind the bytes are, the tip which function took them.
        let mut frames = vec![row.kind.clone()];
        frames.extend(row.caller.frames.iter().rev().cloned());
        if row.caller.frames.is_empty() {
            frames.push(row.function.clone());
        }
        Some((frames, row.live?))
    };
    rows.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution;
    use crate::instant_spec::InstantSpec;
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    #[test]
    fn stacks_of_two_runs_are_matched() {
        let of = |recording| attribution::report(&recording, InstantSpec::Peak);
        let (a, b) = (of(testing::native()), of(testing::container()));
        let flames = flames(Some(&a), &b);
        let pages = &flames[0];
        let slab = pages.rows.iter().find(|row| row.frames[0] == "slab-unreclaimable").unwrap();
        assert_eq!((slab.a_bytes, slab.b_bytes), (6 * MIB, 8 * MIB), "clones of one function are one");
        assert_eq!(slab.frames.last().unwrap(), "allocate_slab");
        assert_eq!(pages.left_out, LeftOut::default());
        assert_eq!(super::flames(None, &b)[0].rows[0].a_bytes, 0);
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let stacks = (0..1000).map(|index| (vec![format!("f{index}")], 1)).collect();
        let flame = flame(&KINDS[0], vec![], stacks, MOST);
        assert_eq!((flame.rows.len(), flame.left_out.rows, flame.left_out.b_bytes), (MOST, 600, 600));
    }
}
