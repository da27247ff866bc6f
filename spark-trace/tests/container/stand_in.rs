//! What the NVIDIA module takes on behalf of a process in a container, on the module that stands in for it
//! (testing/stand-in/): charged to nobody, and still the container's.

use serde_json::Value;

use crate::support::docker::{image, workload_with};
use crate::support::ledger::source_row;
use crate::support::stand_in::{during, stand_in};
use crate::support::{self, Faults, MIB, Recorded, Running, array, int, record, text, workload};

const BYTES: i64 = 512 * MIB;
/// What the workload takes, natively and in the container.
const LINE: &str = "driver-alloc --bytes 512M --page-size 4K --calls 8 --hold 1s --jsonl";

/// The report that the workload printed last.
fn truth(recorded: &Recorded) -> Value {
    let truth = recorded.said();
    assert_eq!(int(&truth["sources"][0]["bytes"]), BYTES);
    truth
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_the_driver_takes_for_a_container_is_found_there_and_charged_to_nobody() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    let native = format!("-- {} {LINE}", workload());
    let native = record(&support::path(&dir, "native.json"), &native).exited(0);
    let line = format!(
        "-- docker run --rm --network=none --device=/dev/nvidia-stand-in {} /workload {LINE}",
        image()
    );
    let words: Vec<_> = line.split_whitespace().collect();
    let mut running = Running::start(&support::path(&dir, "container.json"), &words);
    running.phase("hold");
    let (pid, cgroup) = workload_with("driver-alloc");
    let container = running.finish().exited(0);

    for (name, recorded) in [("native", &native), ("container", &container)] {
        let truth = truth(recorded);
        let show = recorded.show_with(&["--at", &during(&truth, "hold")]);
        let then = int(&source_row(&show["planes"]["system"], "nvidia-sysmem")["bytes"]);
        faults.near(name, then, BYTES);
        let charged = int(&show["planes"]["cgroup"]["expected"]);
        faults.expect(charged < 64 * MIB, || format!("{name}: {charged} bytes are charged"));
        let rows = array(&show["stacks"]).iter().filter(|row| row["source"] == "nvidia-sysmem");
        let rows: Vec<_> = rows.collect();
        faults.near(&format!("{name}: stacks"), rows.iter().map(|row| int(&row["bytes"])).sum(), BYTES);
        for row in rows {
            let of_driver =
                array(&row["frames"]).iter().any(|frame| text(frame) == "nv_alloc_pages [nvidia]");
            faults.expect(row["charged"] == false && of_driver, || format!("{name}: {row}"));
            if name == "container" {
                faults.expect(row["cgroups"] == serde_json::json!([cgroup]), || format!("{cgroup}: {row}"));
            }
        }
        let pid = if name == "container" { i64::from(pid) } else { int(&truth["pid"]) };
        let process = array(&show["processes"]).iter().find(|row| row["pid"] == pid);
        faults
            .expect(process.is_some_and(|row| row["target"] == true), || format!("{name}: no process {pid}"));
    }
    // The driver took as much for both.
    let diff = native.diff_with(&container, &["--plane", "system"]);
    let delta = int(&source_row(&diff, "nvidia-sysmem")["delta_bytes"]);
    faults.expect(delta.abs() <= MIB, || format!("the driver's part differs by {delta}"));
    faults.finish();
}
