//! Which part of spark-trace may use which.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Graph;

/// What the parts are of.
const SOURCE: &str = "spark-trace/src/";

/// A file or folder in [`SOURCE`], and the others that it may use.
struct Part {
    name: &'static str,
    uses: &'static [&'static str],
}

const fn part(name: &'static str, uses: &'static [&'static str]) -> Part {
    Part { name, uses }
}

/// From what knows nothing of the others to what knows them all: a part uses only parts above it.
#[rustfmt::skip]
const PARTS: &[Part] = &[
    part("archive", &[]),
    part("decode", &[]),
    part("elf", &[]),
    part("figures", &[]),
    part("framework_log", &[]),
    part("health", &[]),
    part("invoker", &[]),
    part("parse", &[]),
    part("place", &[]),
    part("units", &[]),
    part("engine", &["invoker"]),
    part("nvml", &["health"]),
    part("plan", &["health"]),
    part("recording", &["health", "parse", "place"]),
    part("classify", &["recording"]),
    part("cuda", &["decode", "recording"]),
    part("ledger", &["recording"]),
    part("analysis", &["classify", "framework_log", "health", "ledger", "parse", "recording", "units"]),
    part("live", &[
        "classify", "cuda", "decode", "elf", "engine", "figures", "framework_log", "health", "invoker", "ledger", "nvml",
        "place", "plan", "recording", "units",
    ]),
    part("study", &[
        "analysis", "archive", "engine", "framework_log", "invoker", "nvml", "parse", "place", "recording", "units",
    ]),
    part("render", &["analysis", "classify", "figures", "health", "ledger", "recording", "study", "units"]),
    part("demo", &["analysis", "archive", "engine", "live", "recording", "units"]),
    part("serve", &["analysis", "health", "ledger", "live", "parse", "place", "plan", "recording", "render"]),
    part("tui", &["analysis", "figures", "recording", "render", "units"]),
    part("cli", &[
        "analysis", "demo", "health", "invoker", "ledger", "live", "parse", "place", "plan", "recording", "render", "serve",
        "study", "tui", "units",
    ]),
];

/// Every use that the table does not allow, a line each; parts that it lacks, and what it allows and nobody needs.
pub fn faults(graph: &Graph) -> Vec<String> {
    faults_of(PARTS, graph)
}

fn faults_of(parts: &[Part], graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unused: BTreeMap<&str, BTreeSet<&str>> =
        parts.iter().map(|part| (part.name, part.uses.iter().copied().collect())).collect();
    for (from, uses) in &graph.uses {
        for (to, place) in uses {
            let (Some(of), Some(used)) = (part_of(&from.file), part_of(&to.file)) else { continue };
            if of == used {
                continue;
            }
            if let Some(part) = parts.iter().find(|part| part.name == of)
                && part.uses.contains(&used)
            {
                unused.get_mut(of).map(|left| left.remove(used));
                continue;
            }
            faults.push(format!(
                "{}:{} uses {}: `{of}` may not use `{used}`",
                from.file, place.line, place.path
            ));
        }
    }
    for (of, left) in unused {
        faults.extend(
            left.iter().map(|used| format!("`{of}` need not be allowed to use `{used}`: it does not")),
        );
    }
    faults
}

/// The part that a file belongs to; none for the crate's root, which is wired from all of them.
fn part_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix(SOURCE)?;
    let first = rest.split('/').next().unwrap_or(rest);
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::graph::Place;
    use crate::lint::tree::Node;

    fn graph(uses: &[(&str, &str)]) -> Graph {
        let node = |file: &str| Node { file: file.to_owned(), tests: false };
        let mut graph = Graph::default();
        for (from, to) in uses {
            let place = Place { line: 7, path: "crate::x::X".to_owned() };
            graph.uses.entry(node(from)).or_default().insert(node(to), place);
        }
        graph
    }

    #[test]
    fn parts_use_what_is_above_them() {
        for (at, part) in PARTS.iter().enumerate() {
            for used in part.uses {
                let above = PARTS[..at].iter().any(|above| above.name == *used);
                assert!(above, "{} uses {used}, which is not above it", part.name);
            }
            assert!(part.uses.is_sorted(), "{}", part.name);
        }
    }

    #[test]
    fn what_the_table_does_not_allow_is_a_fault() {
        let parts = [part("units", &[]), part("live", &["units"])];
        let right = ("spark-trace/src/live/tracer/mod.rs", "spark-trace/src/units.rs");
        assert_eq!(faults_of(&parts, &graph(&[right])), Vec::<String>::new());
        let back = ("spark-trace/src/units.rs", "spark-trace/src/live/mod.rs");
        assert_eq!(
            faults_of(&parts, &graph(&[right, back])),
            ["spark-trace/src/units.rs:7 uses crate::x::X: `units` may not use `live`"]
        );
        let new = ("spark-trace/src/new.rs", "spark-trace/src/units.rs");
        assert_eq!(
            faults_of(&parts, &graph(&[right, new])),
            ["spark-trace/src/new.rs:7 uses crate::x::X: `new` may not use `units`"]
        );
        assert_eq!(
            faults_of(&parts, &graph(&[])),
            ["`live` need not be allowed to use `units`: it does not"]
        );
    }

    #[test]
    fn only_files_of_the_library_are_parts() {
        assert_eq!(part_of("spark-trace/src/live/tracer/mod.rs"), Some("live"));
        assert_eq!(part_of("spark-trace/src/units.rs"), Some("units"));
        assert_eq!(part_of("spark-trace/src/lib.rs"), None);
        assert_eq!(part_of("spark-trace/tests/cli.rs"), None);
    }
}
