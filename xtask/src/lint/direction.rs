//! Which crate may use which. The compiler refuses a circle of crates; that nothing which only reads recordings comes to need
//! a kernel is for this table to refuse.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::suites::elements;

/// A crate of the workspace, and the others that it may use. What its tests use is free.
struct Crate {
    name: &'static str,
    uses: &'static [&'static str],
}

const fn row(name: &'static str, uses: &'static [&'static str]) -> Crate {
    Crate { name, uses }
}

/// From what knows nothing of the others to what knows them all: a crate uses only crates above it.
#[rustfmt::skip]
const CRATES: &[Crate] = &[
    row("ebpf-build", &[]),
    row("spark-trace-common", &[]),
    row("spark-trace-ebpf", &["spark-trace-common"]),
    row("spark-trace-host", &[]),
    row("spark-trace-statistics", &[]),
    row("spark-trace-recording", &["spark-trace-common", "spark-trace-host"]),
    row("spark-trace-engines", &["spark-trace-recording"]),
    row("spark-trace-testing", &["spark-trace-common", "spark-trace-recording"]),
    row("spark-trace-analysis", &["spark-trace-common", "spark-trace-engines", "spark-trace-recording"]),
    row("spark-trace-render", &["spark-trace-analysis", "spark-trace-common", "spark-trace-engines", "spark-trace-recording"]),
    row("spark-trace-study", &[
        "spark-trace-analysis", "spark-trace-common", "spark-trace-engines", "spark-trace-host", "spark-trace-recording",
        "spark-trace-render", "spark-trace-statistics",
    ]),
    row("spark-trace-agent", &[
        "ebpf-build", "spark-trace-common", "spark-trace-engines", "spark-trace-host", "spark-trace-recording",
    ]),
    row("spark-trace", &[
        "spark-trace-agent", "spark-trace-analysis", "spark-trace-common", "spark-trace-engines", "spark-trace-host",
        "spark-trace-recording", "spark-trace-render", "spark-trace-study",
    ]),
    row("spark-trace-fuzz", &[
        "spark-trace", "spark-trace-agent", "spark-trace-analysis", "spark-trace-engines", "spark-trace-recording",
        "spark-trace-render", "spark-trace-study",
    ]),
    row("spark-trace-simulated-cuda", &[]),
    row("spark-trace-simulated-nvml", &[]),
    row("spark-trace-workload", &["spark-trace-common"]),
    row("xtask", &["ebpf-build", "spark-trace-common"]),
];

/// Every use that the table does not allow, a line each; crates that it lacks, and what it allows and nobody needs.
pub fn faults(metadata: &Value) -> Vec<String> {
    faults_of(CRATES, metadata)
}

fn faults_of(table: &[Crate], metadata: &Value) -> Vec<String> {
    let packages = elements(&metadata["packages"]);
    let members: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(row) = table.iter().find(|row| row.name == name) else {
            faults.push(format!("{name}: no row in the table"));
            continue;
        };
        let used: BTreeSet<&str> = elements(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| members.contains(name))
            .collect();
        let allowed: BTreeSet<&str> = row.uses.iter().copied().collect();
        faults.extend(used.difference(&allowed).map(|used| format!("{name} may not use {used}")));
        faults.extend(
            allowed
                .difference(&used)
                .map(|used| format!("{name} need not be allowed to use {used}: it does not")),
        );
    }
    let gone = table.iter().filter(|row| !members.contains(row.name));
    faults.extend(gone.map(|row| format!("{}: no such crate", row.name)));
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn crates_use_what_is_above_them() {
        for (at, row) in CRATES.iter().enumerate() {
            for used in row.uses {
                let above = CRATES[..at].iter().any(|above| above.name == *used);
                assert!(above, "{} uses {used}, which is not above it", row.name);
            }
            assert!(row.uses.is_sorted(), "{}", row.name);
        }
    }

    fn package(name: &str, dependencies: Value) -> Value {
        json!({ "name": name, "dependencies": dependencies })
    }

    #[test]
    fn what_the_table_does_not_allow_is_a_fault() {
        let table = [row("units", &[]), row("agent", &["units"])];
        let right =
            package("agent", json!([{ "name": "units", "kind": null }, { "name": "libc", "kind": null }]));
        let of = |packages: Value| faults_of(&table, &json!({ "packages": packages }));
        assert_eq!(of(json!([package("units", json!([])), right])), Vec::<String>::new());
        let back = package("units", json!([{ "name": "agent", "kind": "build" }]));
        assert_eq!(of(json!([back, right])), ["units may not use agent"]);
        let in_tests = package("units", json!([{ "name": "agent", "kind": "dev" }]));
        assert_eq!(of(json!([in_tests, right])), Vec::<String>::new());
        let idle = package("agent", json!([]));
        assert_eq!(
            of(json!([package("units", json!([])), idle])),
            ["agent need not be allowed to use units: it does not"]
        );
        assert_eq!(
            of(json!([package("units", json!([])), right, package("new", json!([]))])),
            ["new: no row in the table"]
        );
        assert_eq!(of(json!([package("units", json!([]))])), ["agent: no such crate"]);
    }
}
