//! Queries alike in a row as one: who polls says the same thing a thousand times.

use std::collections::BTreeMap;

use super::MemoryQueryRow;
use crate::callers::Caller;
use spark_trace_recording::MemoryState;

/// Queries of one process, one after the other, through the same interface from the same place.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folded {
    pub first_ns: u64,
    pub last_ns: u64,
    pub count: u64,
    pub pid: u32,
    pub comm: String,
    pub interface: String,
    pub directory: Option<String>,
    pub result: i32,
    pub result_name: Option<&'static str>,
    pub text: Option<String>,
    pub values: BTreeMap<String, Range>,
    pub first_state: Option<MemoryState>,
    pub last_state: Option<MemoryState>,
    pub caller: Caller,
    /// The queries that all of them made themselves.
    pub nested: Vec<Folded>,
}

/// Values of one figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

/// In the order of each first query.
pub fn fold(rows: &[MemoryQueryRow]) -> Vec<Folded> {
    fold_all(&rows.iter().collect::<Vec<_>>())
}

fn fold_all(rows: &[&MemoryQueryRow]) -> Vec<Folded> {
    let mut groups: Vec<Vec<&MemoryQueryRow>> = Vec::new();
    // The last group of each process: others may make one in between.
    let mut last: BTreeMap<u32, usize> = BTreeMap::new();
    for row in rows {
        let group = last.get(&row.pid).copied();
        let alike = group.filter(|&index| groups[index].first().is_some_and(|first| is_alike(first, row)));
        match alike {
            Some(index) => groups[index].push(row),
            None => {
                last.insert(row.pid, groups.len());
                groups.push(vec![row]);
            }
        }
    }
    groups.iter().filter_map(|group| folded(group)).collect()
}

fn is_alike(a: &MemoryQueryRow, b: &MemoryQueryRow) -> bool {
    (&a.interface, &a.directory, a.result, &a.text, &a.caller)
        == (&b.interface, &b.directory, b.result, &b.text, &b.caller)
}

fn folded(group: &[&MemoryQueryRow]) -> Option<Folded> {
    let (first, last) = (group.first()?, group.last()?);
    let mut values: BTreeMap<String, Range> = BTreeMap::new();
    for (name, &value) in group.iter().flat_map(|row| &row.values) {
        let range = values.entry(name.clone()).or_insert(Range { least: value, most: value });
        *range = Range { least: range.least.min(value), most: range.most.max(value) };
    }
    let nested: Vec<&MemoryQueryRow> = group.iter().flat_map(|row| &row.nested).collect();
    Some(Folded {
        first_ns: first.at_ns,
        last_ns: last.at_ns,
        count: group.len() as u64,
        pid: first.pid,
        comm: first.comm.clone(),
        interface: first.interface.clone(),
        directory: first.directory.clone(),
        result: first.result,
        result_name: first.result_name,
        text: first.text.clone(),
        values,
        first_state: first.state.clone(),
        last_state: last.state.clone(),
        caller: first.caller.clone(),
        nested: fold_all(&nested),
    })
}
