//! docs/findings.md, made from the table. `SPARK_TRACE_BLESS=1 cargo test` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use super::HYPOTHESES;

const INTRODUCTION: &str = "\
# Findings

<!-- Made from the table in spark-trace/src/analysis/findings/table.rs; `SPARK_TRACE_BLESS=1 cargo test -p spark-trace --lib`
     writes it anew. -->

`spark-trace diff A B` and `spark-trace report A [B]` end with findings: one hypothesis after the other is put to the
numbers of the recordings, at one instant of each run: at the KV-cache reading, if both runs have one, else at the peak.

They are judged **plane by plane**, and a plane is judged by its own levels alone:

1. **cgroup**: what the target is charged, where every recording has it. Nothing that other programs do moves it.
2. **device**: the GPUs' memory, where the target took some. It comes first where the target took most of its memory there.
3. **system**: the whole machine (MemTotal - MemFree), last. It includes everything else that ran, and what nobody is charged
   for. Its levels are `untestable` where the runs began from different states, or where other programs moved more memory
   than makes the difference: the machine's growth minus what the target was charged and what the driver took. At a
   KV-cache reading on unified memory they are always judged: there all of the machine's memory counts, whoever uses it.

A verdict is one of

- **supported**: the numbers say so. For a hypothesis about bytes: it holds at least 2 % of the difference and 16 MiB
  (4 MiB on the cgroup and device planes), in the same direction;
- **refuted**: the numbers were there, and say that it is not so, or not enough to matter;
- **inconclusive**: the numbers were there and do not decide;
- **untestable**: the numbers were not there. Where a hook that a hypothesis needs was not attached, missed 2 % of its
  events or more, or a map or buffer behind it lost entries, the hypothesis is not judged. If the hook missed less than
  that, the verdict stands and says how much was missed.

On one plane no source's bytes belong to two hypotheses, so shares add up; what is left of 100 % is `unattributed`. A hypothesis whose row
has no share is about something that has no bytes of its own, or whose bytes another row counts.

With one recording, its growth since the start is explained instead of a difference.

";

fn manual() -> String {
    let mut text = INTRODUCTION.to_owned();
    for row in HYPOTHESES {
        let _ = writeln!(text, "## {} (`{}`)\n\n{}\n", row.title, row.slug, row.claim);
        let _ = writeln!(text, "- Test: {}", row.test);
        if !row.sources.is_empty() {
            let sources: Vec<_> = row.sources.iter().map(|slug| format!("`{slug}`")).collect();
            let _ = writeln!(text, "- Sources that are its own: {}", sources.join(", "));
        }
        if !row.hooks.is_empty() {
            let hooks: Vec<_> = row.hooks.iter().map(|hook| format!("`{hook}`")).collect();
            let _ = writeln!(text, "- Untestable without: {}", hooks.join(", "));
        }
        let planes: Vec<_> = row.planes.iter().map(|plane| plane.as_str()).collect();
        match planes.is_empty() {
            true => _ = writeln!(text, "- About the runs: judged once, whatever the plane"),
            false => _ = writeln!(text, "- Planes: {}", planes.join(", ")),
        }
        if row.of_two {
            let _ = writeln!(text, "- Takes two recordings");
        }
        let _ = writeln!(text, "- To make sure: {}\n", row.next);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[test]
fn the_manual_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md");
    if std::env::var_os("SPARK_TRACE_BLESS").is_some() {
        std::fs::write(&path, manual()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == manual(), "docs/findings.md is stale: run with SPARK_TRACE_BLESS=1");
}
