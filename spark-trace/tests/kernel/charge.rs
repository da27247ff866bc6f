//! What hooks on page counters count, against what the kernel says a cgroup is charged.

use std::fs::{self, File};
use std::process::Command;

use serde_json::Value;

use crate::support::process::Other;
use crate::support::{
    self, Faults, MIB, Recorded, Running, array, cgroup, int, json, record, source, text, workload,
};

/// The hooks that a level needs, all of them.
const HOOKS: [&str; 3] = ["charge-try", "charge-force", "uncharge"];

/// What a recording says of a hook.
fn hook<'a>(recording: &'a Value, name: &str) -> &'a Value {
    let row = array(&recording["health"]["hooks"]).iter().find(|row| row["name"] == name);
    row.unwrap_or_else(|| panic!("no hook {name}"))
}

/// Why one of `names` did not run: the kernel has no way to. Where it has one, they must run.
fn why_not(recording: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let row = hook(recording, name);
        match text(&row["verdict"]) {
            "ok" => None,
            verdict @ ("unsupported" | "off") => Some(format!("{name}: {verdict}: {}", text(&row["reason"]))),
            verdict => panic!("{name}: {verdict}: {}", row["reason"]),
        }
    })
}

/// Whether a test is to be left at that, and if so why.
fn skipped(recording: &Value) -> bool {
    let why = why_not(recording, &HOOKS);
    if let Some(why) = &why {
        println!("SKIPPED: {why}");
        assert!(array(&recording["provenance"]["charge_levels"]).is_empty());
    }
    why.is_some()
}

/// Readings of a cgroup's usage with the hooks' level before and after.
fn readings(recording: &Value, path: &str) -> Vec<[i64; 3]> {
    let cgroups = array(&recording["samples"]["cgroups"]);
    let series = cgroups.iter().find(|series| series["path"] == path);
    let columns = &series.unwrap_or_else(|| panic!("no readings of {path}"))["columns"];
    let usage = ["memory.current", "memory.usage_in_bytes"].iter().find(|name| columns[**name].is_array());
    let column = |name: &str| {
        let column = columns[name].as_array();
        column.unwrap_or_else(|| panic!("{path} has no column {name}")).iter().map(Value::as_i64)
    };
    let rows = column("hooks.before").zip(column(usage.unwrap())).zip(column("hooks.after"));
    rows.filter_map(|((before, usage), after)| Some([before?, usage?, after?])).collect()
}

/// Where nothing moved from one reading to the next, hooks and file are the same to the byte. (A task may be stopped
/// between the kernel's count and the hook's; the next reading has both.)
fn is_exact(recording: &Value, path: &str, faults: &mut Faults) {
    let readings = readings(recording, path);
    let stood = |at: &usize| {
        let [before, _, after] = readings[*at];
        let since = at.checked_sub(1).is_none_or(|last| readings[last][2] == before);
        before == after && since && readings.get(at + 1).is_none_or(|next| next[0] == after)
    };
    let settled: Vec<_> = (0..readings.len()).filter(stood).map(|at| readings[at]).collect();
    let differing: Vec<_> = settled.iter().filter(|[_, usage, after]| usage != after).collect();
    println!("{path}: {} readings, {} settled, {} differ", readings.len(), settled.len(), differing.len());
    faults.expect(differing.is_empty(), || format!("{path}: {differing:?}"));
    faults.expect(settled.len() >= 5, || {
        format!("{path}: only {} of {} readings were settled", settled.len(), readings.len())
    });
}

fn level<'a>(recording: &'a Value, path: &str) -> &'a Value {
    let cgroups = array(&recording["target"]["cgroups"]);
    let cgroup = cgroups.iter().find(|cgroup| cgroup["path"] == path).unwrap();
    let levels = array(&recording["provenance"]["charge_levels"]);
    levels.iter().find(|level| level["cgroup"] == cgroup["id"]).unwrap()
}

/// Bytes charged, with what runs would have counted that the kernel skipped: one that preempts lazily (7.x) lets another
/// task in while a program runs.
fn charged(level: &Value) -> i64 {
    int(&level["bytes_charged"]) + int(&level["corrected"])
}

fn lost_nothing(recording: &Value, faults: &mut Faults) {
    faults.expect(support::losses(&recording["health"]).0 == 0, || {
        format!("{}", recording["health"]["losses"])
    });
}

/// Bytes charged for `class`, by the report.
fn charged_for(show: &Value, class: &str) -> i64 {
    let rows = array(&show["charges"]["stacks"]).iter().filter(|row| row["class"] == class);
    rows.map(|row| int(&row["bytes_charged"])).sum()
}

/// Records a workload with known amounts of three kinds.
fn known_amounts(dir: &tempfile::TempDir, options: &str) -> Recorded {
    let input = support::path(dir, "input");
    if !std::path::Path::new(&input).exists() {
        support::cold_file(&input, 48);
    }
    support::drop_from_cache(&input);
    let truth = support::path(dir, "truth.json");
    record(
        &support::path(dir, "r.json"),
        &format!(
            "--force {options} -- {} alloc --anon 96M --shmem 64M --file-read 48M --file {input} --hold-each 300ms \
             --hold 500ms --hold-release 500ms --output {truth}",
            workload()
        ),
    )
    .exited(0)
}

fn check_known_amounts(recorded: &Recorded, faults: &mut Faults) {
    let (recording, show) = (recorded.recording(), recorded.show());
    let path = text(&recording["target"]["cgroups"][0]["path"]);
    is_exact(&recording, path, faults);
    lost_nothing(&recording, faults);
    // A task takes 64 pages at once, and what it does not need is not given back by the same path.
    faults.near("charged for anon", charged_for(&show, "anon"), 96 * MIB);
    faults.near("charged for shmem", charged_for(&show, "shmem"), 64 * MIB);
    faults.near("charged for page cache", charged_for(&show, "page-cache"), 48 * MIB);
    let level = level(&recording, path);
    let last = readings(&recording, path).last().unwrap()[2];
    let net = charged(level) - int(&level["bytes_uncharged"]);
    faults.expect(level["seed"] == 0, || format!("a new cgroup has a seed: {level}"));
    // After the last reading the leaf is emptied and removed.
    faults.expect((0..=last).contains(&net) && last - net <= 2 * MIB, || format!("{net} left, read {last}"));
    let agreement = &show["charges"]["agreement"];
    faults.expect(agreement["differing"] == 0 && agreement["largest_difference"] == 0, || {
        format!("the report has a difference: {agreement}")
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_new_cgroup_is_counted_to_the_byte_by_each_mechanism() {
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    for options in ["", "--exclude-mechanism fexit --exclude-mechanism fentry"] {
        let recorded = known_amounts(&dir, options);
        let recording = recorded.recording();
        if options.is_empty() && skipped(&recording) {
            assert_eq!(recorded.show()["charges"], Value::Null);
            return;
        }
        if let Some(why) = why_not(&recording, &HOOKS) {
            println!("the best way was the only one: {why}");
            continue;
        }
        for name in HOOKS {
            let row = hook(&recording, name);
            println!("{name}: {}, {} runs: {}", row["mechanism"], row["hits"], row["reason"]);
            if !options.is_empty() {
                assert_eq!(row["mechanism"], "kprobe", "{row}");
                assert!(text(&row["reason"]).contains("left out by --exclude-mechanism"), "{row}");
            }
        }
        assert!(
            int(&hook(&recording, "charge-try")["hits"]) > 0
                && int(&hook(&recording, "uncharge")["hits"]) > 0
        );
        check_known_amounts(&recorded, &mut faults);
        assert!(recorded.table().contains("Charged by stack"));
    }
    faults.finish();
}

/// A workload in a cgroup of its own, which waits until its file `go` is there.
fn waiting(own: &cgroup::Own, dir: &tempfile::TempDir, name: &str, line: &str) -> Other {
    let mut command = Command::new(workload());
    let (go, truth) = (support::path(dir, name), support::path(dir, &format!("{name}.json")));
    command.arg("alloc").args(line.split_whitespace()).args(["--wait-go", &go, "--output", &truth]);
    own.start_in(&mut command);
    Other::start(&mut command)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_cgroup_is_counted_with_what_is_below_it() {
    let own = cgroup::Own::create("charge");
    let dir = support::disk_dir();
    let mut first = waiting(&own, &dir, "first", "--anon 48M --hold 1500ms --hold-release 500ms");
    let mut second = waiting(&own, &dir, "second", "--shmem 32M --hold 1500ms --hold-release 500ms");
    // On v2 a cgroup with the controller for those below it has no processes of its own.
    own.move_below("before", first.pid());
    let between = own.move_below("between", second.pid());
    if cgroup::memory_root().1 {
        fs::write(own.dir.join("cgroup.subtree_control"), "+memory").unwrap();
    }
    let running = Running::start(&support::path(&dir, "r.json"), &["--cgroup", &own.path]);
    running.follows(first.pid());
    let later = own.move_below("later", second.pid());
    for name in ["first", "second"] {
        File::create(support::path(&dir, name)).unwrap();
    }
    support::wait_for("the second to take its memory", || {
        let current = if cgroup::memory_root().1 { "memory.current" } else { "memory.usage_in_bytes" };
        let bytes: i64 = fs::read_to_string(later.join(current)).ok()?.trim().parse().ok()?;
        (bytes >= 32 * MIB).then_some(())
    });
    // A removed cgroup may go on being uncharged, and its parent with it.
    fs::remove_dir(between).unwrap();
    for process in [&mut first, &mut second] {
        process.0.wait().unwrap();
    }
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    if skipped(&recording) {
        return;
    }
    let mut faults = Faults::default();
    let below = ["before", "later"].map(|name| format!("{}/{name}", own.path));
    for path in [&own.path, &below[0], &below[1]] {
        is_exact(&recording, path, &mut faults);
    }
    lost_nothing(&recording, &mut faults);
    let charged = |path: &str| charged(level(&recording, path));
    faults.expect(charged(&below[0]) >= 48 * MIB, || format!("before: {}", charged(&below[0])));
    faults.expect(charged(&below[1]) >= 32 * MIB, || format!("later: {}", charged(&below[1])));
    let sum = charged(&below[0]) + charged(&below[1]);
    faults.expect((sum..sum + 4 * MIB).contains(&charged(&own.path)), || {
        format!("{} charged to the parent, {sum} to those below it", charged(&own.path))
    });
    faults.expect(level(&recording, &below[1])["seed"] == 0, || "it was made under the trace".to_owned());
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn charges_from_before_are_the_seed_of_a_cgroup() {
    let own = cgroup::Own::create("seed");
    let dir = support::disk_dir();
    let before = waiting(&own, &dir, "before", "--anon 64M --hold 600s");
    let mut later = waiting(&own, &dir, "later", "--shmem 32M --hold 1500ms --hold-release 500ms");
    File::create(support::path(&dir, "before")).unwrap();
    support::wait_for("the first to take its memory", || {
        (cgroup::charged(&own.path).anon >= 64 * MIB).then_some(())
    });
    let running = Running::start(&support::path(&dir, "r.json"), &["--cgroup", &own.path]);
    running.follows(later.pid());
    // The first readings are the seed's.
    running.reads(2);
    File::create(support::path(&dir, "later")).unwrap();
    later.0.wait().unwrap();
    drop(before);
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    if skipped(&recording) {
        return;
    }
    let mut faults = Faults::default();
    is_exact(&recording, &own.path, &mut faults);
    let level = level(&recording, &own.path);
    let (seed, charged) = (int(&level["seed"]), charged(level));
    println!("seed {seed}, charged {charged}, uncharged {}", level["bytes_uncharged"]);
    faults.expect((64 * MIB..72 * MIB).contains(&seed), || format!("seed {seed}"));
    faults.expect((32 * MIB..40 * MIB).contains(&charged), || format!("charged {charged}"));
    faults.expect(int(&level["bytes_uncharged"]) >= 32 * MIB, || format!("{level}"));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn counters_of_memory_stat_are_the_same_by_each_mechanism() {
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    let hooks = ["charge", "charge-node"];
    let (mut without, mut ways, mut why) = (String::new(), 0, None);
    for mechanism in ["tp_btf", "fentry", "kprobe"] {
        let recorded = known_amounts(&dir, &format!("--profile deep {without}"));
        let (recording, show) = (recorded.recording(), recorded.show());
        for hook in hooks {
            without.push_str(&format!("--exclude-mechanism {hook}:{mechanism} "));
        }
        if let Some(reason) = why_not(&recording, &hooks) {
            why.get_or_insert(reason);
            continue;
        }
        ways += 1;
        let path = text(&recording["target"]["cgroups"][0]["path"]);
        let id = &recording["target"]["cgroups"][0]["id"];
        println!(
            "{}: {}",
            hook(&recording, "charge")["mechanism"],
            hook(&recording, "charge-node")["mechanism"]
        );
        let instants = array(&recording["provenance"]["instants"]);
        let peak = instants.iter().position(|instant| instant["why"] == "cgroup-peak").unwrap();
        let net = |item: &str| {
            let rows = array(&recording["provenance"]["charges"]);
            let row = rows.iter().find(|row| row["item"] == item && &row["cgroup"] == id);
            row.map_or(0, |row| row["net"][peak].as_i64().unwrap_or(0))
        };
        let truth = json(support::path(&dir, "truth.json"));
        let anon = support::ledger::allocated(&truth, "anon");
        faults.near(&format!("{path}: NR_ANON_MAPPED"), net("NR_ANON_MAPPED"), anon);
        faults.near(&format!("{path}: NR_SHMEM"), net("NR_SHMEM"), 64 * MIB);
        faults.near(&format!("{path}: NR_FILE_PAGES"), net("NR_FILE_PAGES"), (64 + 48) * MIB);
        // On v1 the kernel's own files do not say.
        if cgroup::memory_root().1 {
            let slab = net("NR_SLAB_RECLAIMABLE_B");
            faults.near(&format!("{path}: slab"), slab, source(&show, "cgroup", "slab-reclaimable"));
        }
    }
    if let Some(why) = why {
        println!("{ways} ways; then {why}");
        assert!(ways > 0, "no mechanism carried the hooks: {why}");
    }
    faults.finish();
}
