//! docs/reference/findings.md, made from the table. `SPARK_TRACE_BLESS=1 cargo test` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use super::HYPOTHESES;

const INTRODUCTION: &str = "\
# Findings

<!-- Made from the table in crates/analysis/src/findings/table.rs; `SPARK_TRACE_BLESS=1 cargo test -p spark-trace-analysis --lib`
     writes it anew. -->

`spark-trace diff A B` and `spark-trace report A [B]` end with findings: hypotheses tested on the numbers of the recordings, at
the KV-cache reading if both runs have one, else at the peak. With one recording its growth since the start is tested.

Each **plane** is judged by its own levels:

1. **cgroup**: memory charged to the target. Other programs do not change it.
2. **device**: memory of the GPUs, if the target used some; first if most of the target's memory is there.
3. **system**: the whole machine (MemTotal - MemFree), with everything else that ran. Untestable if the runs began in different
   states, or if other programs changed more memory than the difference. At a KV-cache reading on unified memory it is always
   judged, because all of the machine's memory counts there.

A verdict is one of

- **supported**: for bytes, at least 2 % of the difference and 16 MiB (4 MiB on the cgroup and device planes), in the same
  direction;
- **refuted**: the numbers contradict it, or are below that threshold;
- **inconclusive**: the numbers do not decide;
- **untestable**: the numbers are missing: a needed hook was not attached, missed 2 % of its events or more, or lost entries.

On one plane no bytes belong to two hypotheses, so shares add up; the rest is `unattributed`. A row without a share has no bytes
of its own.

";

fn manual() -> String {
    let mut text = INTRODUCTION.to_owned();
    for row in HYPOTHESES {
        let _ = writeln!(text, "## {} (`{}`)\n\n{}\n", row.title, row.slug, row.claim);
        let _ = writeln!(text, "- Test: {}", row.test);
        if !row.sources.is_empty() {
            let sources: Vec<_> = row.sources.iter().map(|slug| format!("`{slug}`")).collect();
            let _ = writeln!(text, "- Sources: {}", sources.join(", "));
        }
        if !row.hooks.is_empty() {
            let hooks: Vec<_> = row.hooks.iter().map(|hook| format!("`{hook}`")).collect();
            let _ = writeln!(text, "- Untestable without: {}", hooks.join(", "));
        }
        let planes: Vec<_> = row.planes.iter().map(|plane| plane.as_str()).collect();
        match planes.is_empty() {
            true => _ = writeln!(text, "- About the runs, not a plane"),
            false => _ = writeln!(text, "- Planes: {}", planes.join(", ")),
        }
        if row.of_two {
            let _ = writeln!(text, "- Needs two recordings");
        }
        let _ = writeln!(text, "- To confirm: {}\n", row.next);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[test]
fn the_manual_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/findings.md");
    spark_trace_testing::golden(path, &manual());
}
