//! Programs that nobody here wrote, recorded in containers and compared with native runs, while the machine is busy.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::docker::{image, tree_image};
use crate::support::field::{PROGRAMS, Place, observe};
use crate::support::field_checks::{difference, levels, words};
use crate::support::{Faults, array};

/// Containers that start and stop, one after the other, for as long as it lives.
struct Neighbours {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Neighbours {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let stop = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                let line =
                    format!("run --rm --network=none {} /workload alloc --anon 48M --hold 100ms", image());
                let mut docker = Command::new("docker");
                docker.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
                runs += usize::from(docker.status().is_ok_and(|status| status.success()));
            }
            runs
        });
        Self { ends, thread: Some(thread) }
    }

    /// How many have run.
    fn finish(mut self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn programs_in_containers_agree_with_the_kernel_and_their_native_runs_while_others_come_and_go() {
    let place = Place::Container { image: tree_image() };
    let mut faults = Faults::default();
    let neighbours = Neighbours::start();
    for program in PROGRAMS {
        if let Some(why) = program.missing() {
            println!("SKIPPED: field: unavailable: {why}");
            continue;
        }
        let contained = observe(program, &place, "container");
        let recording = contained.recorded.recording();
        let roots =
            array(&recording["target"]["cgroups"]).iter().filter(|cgroup| cgroup["root"] == true).count();
        faults.expect(roots == 1, || {
            format!("{}: {roots} roots: {}", program.name, recording["target"]["cgroups"])
        });
        levels(program, &contained, &mut faults);
        words(program, &contained, &mut faults);
        let native = observe(program, &Place::Native, "native");
        difference(program.name, &native, &contained, &mut faults);
    }
    let ran = neighbours.finish();
    println!("{ran} containers of others ran meanwhile");
    faults.expect(ran > 0, || "no container of others ran".to_owned());
    faults.finish();
}
