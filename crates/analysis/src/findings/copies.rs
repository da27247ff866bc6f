//! The claim that one file is in the page cache under several inodes.

use std::collections::BTreeMap;

use super::because::Reason;
use super::cache::left_by_a;
use super::case::{Case, Judgement};
use super::{Evidence, Side, Unit, Verdict};
use crate::files::FileRow;
use crate::signed::signed;

/// Groups that are shown as evidence.
const MOST: usize = 5;
/// Files of one name whose contents are not known are worth a word where as much of both is cached, to within this part.
const ALIKE_PERCENT: i64 = 2;
/// Smaller copies do not matter.
const COPY_BYTES: i64 = 1 << 20;

const PLACE: &str = "provenance.files";

/// A file, and the run that it is of.
type Copy<'a> = (FileRow, &'a str);

/// Files that are one, or may be.
struct Group<'a> {
    copies: Vec<Copy<'a>>,
}

impl Group<'_> {
    /// Bytes that would not be there were it one file.
    fn surplus(&self) -> i64 {
        let bytes = || self.copies.iter().map(|(row, _)| row.bytes);
        bytes().fold(0, i64::saturating_add) - bytes().max().unwrap_or(0)
    }

    fn evidence(&self, proof: &str) -> Evidence {
        let places = self.copies.iter().map(|(row, run)| {
            format!("{} (inode {} of {}, {run})", row.path.as_deref().unwrap_or("?"), row.inode, row.device)
        });
        let places: Vec<_> = places.collect();
        let name = self.copies.first().and_then(|(row, _)| name(row)).unwrap_or("?");
        Evidence {
            what: format!("{name} is cached {} times, {proof}: {}", places.len(), places.join(", ")),
            value: Some(self.surplus()),
            unit: Unit::Bytes,
            side: Side::Both,
            place: PLACE.to_owned(),
        }
    }

    fn is_in(&self, run: &str) -> bool {
        self.copies.iter().any(|(_, of)| *of == run)
    }
}

const EQUAL: &str = "equal contents in all compared blocks";
const NOT_COMPARED: &str = "same name and similar cached bytes; contents not compared";

pub fn duplicates(case: &Case<'_>) -> Judgement {
    const LEFT: &str = "A, left cached";
    let mut files: Vec<Vec<Copy<'_>>> = Vec::new();
    for run in case.runs() {
        files.push(merged(run.files.iter().cloned().map(|row| (row, run.name()))));
    }
    if let Some(b) = case.b() {
        let left = left_by_a(case).into_iter().map(|(row, _)| (row, LEFT));
        files.push(merged(left.chain(b.files.iter().cloned().map(|row| (row, b.name())))));
    }
    let of_both = files.len().checked_sub(1).filter(|_| case.a.is_some());
    let (mut equal, mut unknown) = (Vec::new(), Vec::new());
    for (index, files) in files.into_iter().enumerate() {
        // What B has twice by itself is listed already.
        let new = |group: &Group<'_>| Some(index) != of_both || group.is_in(LEFT);
        if case.a.is_none() && index > 0 {
            break;
        }
        unknown.extend(not_compared(&files).into_iter().filter(new));
        equal.extend(copies(files).into_iter().filter(new));
    }
    for groups in [&mut equal, &mut unknown] {
        groups.sort_by_key(|group| std::cmp::Reverse(group.surplus()));
    }
    let sum = |groups: &[Group<'_>]| groups.iter().map(Group::surplus).fold(0, i64::saturating_add);
    let (twice, maybe) = (sum(&equal), sum(&unknown));
    let evidence = equal.iter().take(MOST).map(|group| group.evidence(EQUAL));
    let evidence = evidence.chain(unknown.iter().take(MOST).map(|group| group.evidence(NOT_COMPARED)));
    let evidence: Vec<_> = evidence.collect();
    let unnamed = unnamed(case);
    let (verdict, reason) = if twice >= case.material {
        (Verdict::Supported, Reason::Copies(twice))
    } else if maybe >= case.material {
        (Verdict::Inconclusive, Reason::PerhapsCopies(maybe))
    } else if unnamed_more(case) >= case.material {
        (Verdict::Inconclusive, Reason::UnnamedCopies(unnamed_more(case)))
    } else if unnamed > 0 {
        (Verdict::Refuted, Reason::NoCopiesSince(unnamed))
    } else {
        (Verdict::Refuted, Reason::NoCopies)
    };
    Judgement::new(verdict, reason, evidence)
}

/// Bytes of page cache from before the trace, whose files have no name here.
fn unnamed(case: &Case<'_>) -> u64 {
    case.b().and_then(|b| b.start.bytes("file-clean")).unwrap_or(0)
}

/// How much more of that B found than A: less what A left, whose files have names. What both found explains no difference. What
/// A left may have gone before B began, and other files come; of that nothing is known.
fn unnamed_more(case: &Case<'_>) -> i64 {
    let Some(a) = &case.a else { return 0 };
    let before = a.start.bytes("file-clean").unwrap_or(0);
    let left = left_by_a(case).into_iter().map(|(row, _)| row.bytes).fold(0, i64::saturating_add);
    signed(unnamed(case)).saturating_sub(signed(before)).saturating_sub(left)
}

fn name(row: &FileRow) -> Option<&str> {
    row.path.as_deref()?.rsplit('/').next()
}

/// Each file once, the most cached first: one may be charged to several cgroups, and be in both runs.
fn merged<'a>(rows: impl Iterator<Item = Copy<'a>>) -> Vec<Copy<'a>> {
    let mut files: BTreeMap<(String, u64), Copy<'a>> = BTreeMap::new();
    for (row, run) in rows {
        match files.get_mut(&(row.device.clone(), row.inode)) {
            Some((known, known_run)) if *known_run == run => {
                known.bytes = known.bytes.saturating_add(row.bytes)
            }
            Some(_) => {}
            None => {
                files.insert((row.device.clone(), row.inode), (row, run));
            }
        }
    }
    let mut files: Vec<_> = files.into_values().filter(|(row, _)| row.bytes >= COPY_BYTES).collect();
    files.sort_by_key(|(row, _)| std::cmp::Reverse(row.bytes));
    files
}

/// Whether two files have the same content, where that is known.
fn equals(a: &FileRow, b: &FileRow) -> Option<bool> {
    a.content.as_ref()?.equals(b.content.as_ref()?)
}

/// Files with equal contents, whatever they are called.
fn copies(files: Vec<Copy<'_>>) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for copy in files.into_iter().filter(|(row, _)| row.content.is_some()) {
        let known = groups.iter_mut().find(|group| {
            group.copies.first().is_some_and(|(first, _)| equals(first, &copy.0) == Some(true))
        });
        match known {
            Some(group) => group.copies.push(copy),
            None => groups.push(Group { copies: vec![copy] }),
        }
    }
    groups.retain(|group| group.copies.len() > 1);
    groups
}

/// Files of one name of which about as much is cached and whose contents are not known to be equal or to differ.
fn not_compared<'a>(files: &[Copy<'a>]) -> Vec<Group<'a>> {
    let mut by_name: BTreeMap<&str, Vec<&Copy<'a>>> = BTreeMap::new();
    for copy in files {
        if let Some(name) = name(&copy.0) {
            by_name.entry(name).or_default().push(copy);
        }
    }
    let groups = by_name.into_values().filter_map(|copies| {
        // The most cached stands first.
        let (largest, _) = copies.first()?;
        let alike = copies.iter().enumerate().filter(|(index, (row, _))| {
            *index == 0
                || (largest.bytes - row.bytes) * 100 <= largest.bytes * ALIKE_PERCENT
                    && equals(largest, row).is_none()
        });
        let copies: Vec<_> = alike.map(|(_, copy)| (*copy).clone()).collect();
        (copies.len() > 1).then_some(Group { copies })
    });
    groups.collect()
}
