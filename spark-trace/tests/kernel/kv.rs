//! `kv` beside engines whose readings, arithmetic and log are staged on the simulated driver.

use staged::{Staged, run};

use crate::support::{self, int};

mod causes;
mod graphs;
mod on_stand_in;
mod rows;
mod staged;
mod tenant;

/// A context that fits as a whole is not limited by free memory, and nothing is advised for it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_engine_whose_context_fits_lacks_nothing() {
    let dir = support::disk_dir();
    causes::make_room();
    for (name, known_as) in [("llama-cpp", "llama.cpp"), ("ollama", "ollama")] {
        let engine = Staged { name, known_as, signal: "MemAvailable", needs_log: true, step: 0 };
        let Some(run) = run(&dir, name, engine, "--context-size 256M", "") else { return };
        run.agrees();
        assert_eq!(int(&run.budget()["reading"]["free"]), run.read("baseline"), "before the weights");
        assert!(run.notes("the whole context fits"), "{}", run.budget()["notes"]);
        for action in ["drop-page-cache", "end-others"] {
            assert!(run.advice(action, "").is_none(), "{name}: {}", run.kv["advice"]);
        }
    }
}

/// Ollama states the context: where it does not fit, layers leave the GPU, and how large their cache was is in the log alone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stated_context_that_does_not_fit_has_no_computed_cache() {
    let dir = support::disk_dir();
    causes::make_room();
    let engine =
        Staged { name: "ollama", known_as: "ollama", signal: "MemAvailable", needs_log: true, step: 0 };
    // Room for about half of the layers.
    let margin = support::meminfo("MemAvailable") / support::MIB - 320;
    let options = format!("--context-size 512M --fit-target {margin}");
    let Some(run) = run(&dir, "layers", engine, &options, "") else { return };
    let figures = &run.budget()["figures"];
    assert!(run.measured() < 512 << 20, "{}", run.truth);
    assert!(figures["kv"].is_null(), "{figures}");
    assert_eq!(int(&figures["context"]), 512 << 20);
    assert!(int(&figures["logged_allocated"]).abs_diff(run.measured()) <= run.tolerance(), "{figures}");
    assert!(run.notes("layers go to the host") && !run.notes("context fits"), "{}", run.budget()["notes"]);
    assert!(run.advice("end-others", "").is_none(), "{}", run.kv["advice"]);
}
