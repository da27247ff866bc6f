//! What a snapshot of a machine with containers calls them, beside Docker's own words.

use std::fs;

use serde_json::Value;

use crate::support::docker::{Named, docker, image};
use crate::support::{self, Faults, MIB, array, int, spark_trace, text};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_snapshot_calls_containers_by_name_and_says_what_it_could_name() {
    let named = Named::new("lists-snapshot");
    let line = format!(
        "run -d --name {} --network=none --shm-size=256m {} /workload alloc --anon 40M --hold 300s",
        named.0,
        image()
    );
    docker(&line);
    let id = named.id();
    let pid = named.pid();
    support::wait_for("the container to hold its memory", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.to_owned();
        (line.split_whitespace().next()?.parse::<i64>().ok()? >= 40 << 10).then_some(())
    });
    // Left by somebody who has ended, in the container's own /dev/shm: the test reaches it as the kernel offers it.
    let segment = format!("/proc/{pid}/root/dev/shm/left");
    fs::write(&segment, vec![1u8; 24 << 20]).unwrap();
    let output = spark_trace().args(["snapshot", "--format", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = array(&shown["cgroups"]).iter().find(|row| text(&row["path"]).contains(&id)).unwrap();
    let mut faults = Faults::default();
    faults.expect(row["container"] == named.0.as_str(), || row.to_string());
    let tmpfs = array(&shown["tmpfs"])
        .iter()
        .find(|row| row["container"] == named.0.as_str() && row["mount_point"] == "/dev/shm");
    faults.expect(tmpfs.is_some_and(|row| int(&row["bytes_at_start"]) == 24 * MIB), || {
        shown["tmpfs"].to_string()
    });
    let cache = &shown["cache_named"];
    faults
        .expect(int(&cache["bytes"]) > 0 && int(&cache["of"]) >= int(&cache["bytes"]), || cache.to_string());
    let table =
        String::from_utf8(spark_trace().args(["snapshot", "--top", "40"]).output().unwrap().stdout).unwrap();
    for word in ["before the trace", "what the target", "RSS PEAK", "EXIT", "GROWTH"] {
        faults.expect(!table.contains(word), || format!("{word:?} in a snapshot"));
    }
    // A narrow table cuts the beginning of a path, not the name behind it.
    for word in ["SHMEM", "lists-snapshot)", "found: "] {
        faults.expect(table.contains(word), || format!("no {word:?} in {table}"));
    }
    faults.finish();
}
