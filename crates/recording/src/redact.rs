//! A recording without the names of people, programs and files, for giving it to others.
//!
//! Every text is replaced but for those that are listed: a field that is new, and not thought of here, is hidden. The
//! same name has the same stand-in throughout, so that files, cgroups and processes stay distinct; the key
//! is made anew for each recording, or for those of one report, and kept nowhere, so that names cannot be tried out.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use super::kinds::Space;
use super::schema::Recording;

/// Texts that stay, by their place. `*` is any element or field; what lies below a place is meant too.
pub type Kept = &'static [&'static [&'static str]];

/// Of the machine, in recordings and in what `doctor` says.
pub const HOST: &[&str] = &[
    "host/kernel",
    "host/arch",
    "host/cgroup_version",
    "host/memory_controller",
    "host/model",
    "host/transparent_hugepage",
    "host/provenance",
    "host/gpus/*/name",
    "host/nvidia/driver_version",
    "host/nvidia/cuda_driver_version",
    "host/nvidia/kernel_module",
];

const KEPT: Kept = &[HOST, OF_RECORDINGS];

const OF_RECORDINGS: &[&str] = &[
    "schema",
    "tool",
    "host/gpus/*/compute_capability",
    "host/nvidia/nvml_version",
    "clock",
    "target/kind",
    "target/container/engine",
    "phases/*/name",
    "health/losses",
    "health/hooks",
    "health/sources",
    "health/libraries/*/library",
    "health/libraries/*/verdict",
    "samples/system/absent",
    "samples/cgroups/*/absent",
    "samples/processes/*/absent",
    "samples/cuda/absent",
    "samples/devices/*/absent",
    "provenance/instants/*/why",
    "provenance/page_allocs/*/mobility",
    "provenance/files/*/device",
    "provenance/files/*/place/state",
    "provenance/mappings/*/op",
    "provenance/mappings/*/kind",
    "provenance/brief_mappings/*/kind",
    "provenance/charges/*/item",
    "provenance/driver_allocs/*/kind",
    "provenance/cuda_allocs/*/function",
    "provenance/cuda_allocs/*/kind",
    "provenance/cuda_largest/*/function",
    "provenance/cuda_largest/*/kind",
    "provenance/cuda_totals/*/kind",
    "provenance/cuda_by_gpu/*/kind",
    "provenance/cuda_failures/*/function",
    "provenance/cuda_failures/*/kind",
    "provenance/queries/*/kind",
    "provenance/queries/*/interface",
    "provenance/stacks/*/space",
    // Those of programs have stand-ins before this list is read.
    "provenance/symbols/*/name",
    "provenance/outside/*/moment",
    "provenance/tmpfs/*/device",
    "provenance/tmpfs/*/kind",
    "provenance/tmpfs/*/moment",
];

/// Parts of paths that say nothing of anybody.
const COMMON: &[&str] = &[
    "bin",
    "boot",
    "dev",
    "docker",
    "etc",
    "home",
    "init.scope",
    "kubepods",
    "lib",
    "lib64",
    "libexec",
    "local",
    "log",
    "mnt",
    "opt",
    "overlay2",
    "proc",
    "root",
    "run",
    "sbin",
    "shm",
    "snapshots",
    "srv",
    "sys",
    "system.slice",
    "tmp",
    "user.slice",
    "usr",
    "var",
];

/// What the kernel puts between brackets in the place of a file's name (fs/proc/task_mmu.c), and spark-trace itself.
const SPECIAL: &[&str] = &[
    "[anon]",
    "[heap]",
    "[kernel]",
    "[sigreturn]",
    "[stack]",
    "[uprobes]",
    "[vdso]",
    "[vectors]",
    "[vsyscall]",
    "[vvar]",
    "[vvar_vclock]",
];

/// Libraries that many use, and that decide findings: their names without `.so` and what follows it.
const LIBRARIES: &[&str] = &[
    "ld-linux-aarch64",
    "ld-linux-x86-64",
    "libc",
    "libc10",
    "libc10_cuda",
    "libcrypto",
    "libcublas",
    "libcublasLt",
    "libcuda",
    "libcudart",
    "libcudnn",
    "libcudnn_adv",
    "libcudnn_cnn",
    "libcudnn_engines_precompiled",
    "libcudnn_graph",
    "libcudnn_heuristic",
    "libcudnn_ops",
    "libcufft",
    "libcufile",
    "libcupti",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libcusparseLt",
    "libdl",
    "libgcc_s",
    "libgomp",
    "libiomp5",
    "libjemalloc",
    "libm",
    "libmimalloc",
    "libmkl_core",
    "libmpi",
    "libnccl",
    "libnvidia-ml",
    "libnvidia-ptxjitcompiler",
    "libnvinfer",
    "libnvJitLink",
    "libnvrtc",
    "libnvToolsExt",
    "libomp",
    "libopenblas",
    "libpthread",
    "libpython3",
    "librt",
    "libssl",
    "libstdc++",
    "libtcmalloc",
    "libtcmalloc_minimal",
    "libtorch",
    "libtorch_cpu",
    "libtorch_cuda",
    "libtorch_python",
    "libucp",
    "libucs",
    "libz",
];

/// The kernel's own functions are everybody's; those of modules and of BPF programs are their makers'.
const BPF_PROGRAM: &str = "bpf_prog_";
const NVIDIA: &str = "nvidia";

/// The recording with stand-ins for names, for giving it to others.
pub fn redact(recording: &Recording) -> serde_json::Result<Recording> {
    let mut recording = recording.clone();
    // Whoever has a file could find out that it was there.
    recording.provenance.files.iter_mut().for_each(|file| file.content = None);
    Names::new().hidden_in(recording)
}

/// Stand-ins that are the same in several recordings, for what is said of all of them together.
pub struct Names(Hidden);

impl Names {
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self(Hidden { key: RandomState::new() })
    }

    /// The recording with stand-ins for names, for a page about it. What was read of files is left, so that verdicts do not change: it
    /// is not for giving to others.
    pub fn hidden_in(&self, mut recording: Recording) -> serde_json::Result<Recording> {
        self.0.symbols(&mut recording);
        let mut value = serde_json::to_value(&recording)?;
        self.0.visit(&mut value, &mut Vec::new());
        serde_json::from_value(value)
    }
}

/// Anything else with stand-ins for all of its texts but for those at `kept`.
pub fn redact_value(value: &mut Value, kept: Kept) {
    Hidden { key: RandomState::new() }.visit_but(value, &mut Vec::new(), kept);
}

struct Hidden {
    key: RandomState,
}

impl Hidden {
    fn visit(&self, value: &mut Value, place: &mut Vec<String>) {
        self.visit_but(value, place, KEPT);
    }

    fn visit_but(&self, value: &mut Value, place: &mut Vec<String>, kept: Kept) {
        match value {
            Value::String(text) if !is_kept(place, kept) => *text = self.text(text),
            // A sentence of ours, or a word out of a list: only paths in it are somebody's.
            Value::String(text) if text.contains('/') => *text = self.paths(text),
            Value::Array(elements) => {
                place.push("*".to_owned());
                elements.iter_mut().for_each(|element| self.visit_but(element, place, kept));
                place.pop();
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    place.push(name.clone());
                    self.visit_but(field, place, kept);
                    place.pop();
                }
            }
            _ => {}
        }
    }

    /// Functions of the kernel, of NVIDIA's modules and of libraries that many use stay; others are their makers' names.
    fn symbols(&self, recording: &mut Recording) {
        let provenance = &mut recording.provenance;
        let of_kernel: BTreeSet<u32> = provenance
            .stacks
            .iter()
            .filter(|stack| stack.space == Space::Kernel)
            .flat_map(|stack| stack.frames.iter().copied())
            .collect();
        for (index, symbol) in (0..).zip(&mut provenance.symbols) {
            let file = symbol.module.as_deref().map(|module| module.rsplit('/').next().unwrap_or(module));
            let Some(name) = &mut symbol.name else { continue };
            let stays = match (of_kernel.contains(&index), file) {
                (true, None) => !name.starts_with(BPF_PROGRAM),
                (true, Some(module)) => module.starts_with(NVIDIA),
                (false, file) => file.is_some_and(is_library),
            };
            if !stays {
                *name = self.stand_in(name);
            }
        }
    }

    /// Text with paths in it: a slash that follows a letter is none of a path from the root.
    fn paths(&self, text: &str) -> String {
        let is_path = |word: &str| {
            word.find('/').is_some_and(|at| !word[..at].ends_with(|c: char| c.is_alphanumeric()))
        };
        let word = |word: &str| if is_path(word) { self.text(word) } else { word.to_owned() };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// Paths keep their depth, and what is common in them.
    fn text(&self, text: &str) -> String {
        if text.contains('/') {
            return text.split('/').map(|part| self.part(part)).collect::<Vec<_>>().join("/");
        }
        self.part(text)
    }

    fn part(&self, part: &str) -> String {
        let is_plain = part.is_empty() || COMMON.contains(&part) || SPECIAL.contains(&part);
        if is_plain || is_library(part) { part.to_owned() } else { self.stand_in(part) }
    }

    fn stand_in(&self, name: &str) -> String {
        format!("name-{:08x}", self.key.hash_one(name) as u32)
    }
}

/// `libcudart.so.12`, `libgomp-a34b3233.so.1`, `libpython3.11.so.1.0`: no part of it is free for another name.
fn is_library(file: &str) -> bool {
    let Some((stem, version)) = file.split_once(".so") else { return false };
    let is_version = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let hash = |rest: &str| {
        rest.strip_prefix('-')
            .is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let is_known = LIBRARIES.iter().any(|known| {
        stem.strip_prefix(known).is_some_and(|rest| rest.is_empty() || hash(rest) || is_version(rest))
    });
    is_known && is_version(version)
}

fn is_kept(place: &[String], kept: Kept) -> bool {
    kept.iter().copied().flatten().any(|kept| {
        let mut parts = place.iter();
        kept.split('/').all(|wanted| parts.next().is_some_and(|part| wanted == "*" || part == wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn no_name_is_left_and_no_number_has_changed() {
        let recording = testing::container();
        let redacted = redact(&recording).unwrap();
        let names = |recording: &Recording| -> Vec<_> {
            let provenance = &recording.provenance;
            let stacks = provenance.stacks.iter().filter(|stack| stack.space == Space::Kernel);
            stacks
                .flat_map(|stack| &stack.frames)
                .map(|frame| provenance.symbols[*frame as usize].name.clone())
                .collect()
        };
        assert!(names(&recording).iter().any(Option::is_some));
        assert_eq!(names(&redacted), names(&recording), "functions of the kernel are nobody's");
        let text = serde_json::to_string(&redacted).unwrap();
        let before = serde_json::to_string(&recording).unwrap();
        for name in ["python3", "/docker/", "libtorch_cuda.so"] {
            assert!(before.contains(name), "{name} is not in the example");
        }
        assert!(!text.contains("python3"));
        assert!(text.contains("libtorch_cuda.so"), "libraries are told by name");
        assert_eq!(redacted.samples.system, recording.samples.system);
        assert_eq!(redacted.target.kind, recording.target.kind);
        assert_eq!(redacted.host.kernel, recording.host.kernel);
        // It is a recording still.
        super::super::read::parse(std::path::Path::new("redacted"), text.as_bytes()).unwrap();
    }

    #[test]
    fn a_name_has_one_stand_in_and_another_in_another_recording() {
        let recording = testing::container();
        let (one, other) = (redact(&recording).unwrap(), redact(&recording).unwrap());
        let path = |recording: &Recording| recording.target.cgroups[0].path.clone();
        let named = one.provenance.cgroups.iter().find(|cgroup| cgroup.id == one.target.cgroups[0].id);
        assert!(named.is_none_or(|named| named.path == path(&one)));
        assert_ne!(path(&one), path(&other));
        assert_ne!(path(&one), path(&recording));
    }

    #[test]
    fn what_is_new_is_hidden() {
        let hidden = Hidden { key: RandomState::new() };
        let mut value =
            serde_json::json!({"host": {"kernel": "6.18", "owner": "Ada"}, "new": {"a": ["b c", 5]}});
        hidden.visit(&mut value, &mut Vec::new());
        assert_eq!(value["host"]["kernel"], "6.18");
        assert!(value["host"]["owner"].as_str().unwrap().starts_with("name-"));
        assert!(value["new"]["a"][0].as_str().unwrap().starts_with("name-"));
        assert_eq!(value["new"]["a"][1], 5);
    }

    /// Puts a name into every text that a recording has, once as it is and once dressed up as something that stays.
    fn plant(value: &mut Value, place: &mut Vec<String>, dressed: &str) {
        match value {
            Value::String(text) if !is_kept(place, KEPT) && !is_enumerated(place) => dressed.clone_into(text),
            Value::String(text) => text.push_str(&format!(" /srv/{dressed}/file")),
            Value::Array(elements) => {
                place.push("*".to_owned());
                elements.iter_mut().for_each(|element| plant(element, place, dressed));
                place.pop();
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    place.push(name.clone());
                    plant(field, place, dressed);
                    place.pop();
                }
            }
            _ => {}
        }
    }

    /// Texts out of a closed list: with anything else in them it would be no recording.
    fn is_enumerated(place: &[String]) -> bool {
        is_kept(place, &[&["schema", "provenance/tmpfs/*/moment", "provenance/files/*/place/state"]])
    }

    #[test]
    fn no_planted_name_is_left() {
        const NAME: &str = "S3CRET";
        for dressed in [
            "S3CRET",
            "[S3CRET]",
            "libS3CRET.so.1",
            "libcuda.so.S3CRET",
            "libcuda-S3CRET.so.1",
            "/dev/S3CRET",
            "[anon:S3CRET]",
            "S3CRET (deleted)",
            "/[S3CRETcg]/libS3CRET.so",
            "[stack]S3CRET",
            "lib.soS3CRET",
        ] {
            for recording in [testing::container(), testing::native(), testing::gpus()] {
                let mut value = serde_json::to_value(&recording).unwrap();
                // These are decided by lists, and by what stands in the stacks.
                let kinds: Vec<_> =
                    recording.provenance.stacks.iter().map(|stack| stack.space.clone()).collect();
                plant(&mut value, &mut Vec::new(), dressed);
                value["schema"] = "spark-trace/recording".into();
                for state in ["provenance/files", "provenance/tmpfs"] {
                    restore(&mut value, &serde_json::to_value(&recording).unwrap(), state);
                }
                let mut planted: Recording = serde_json::from_value(value).unwrap();
                for (stack, space) in planted.provenance.stacks.iter_mut().zip(kinds) {
                    stack.space = space;
                }
                for symbol in &mut planted.provenance.symbols {
                    symbol.module = Some(format!("/opt/{dressed}"));
                }
                let of_kernel: BTreeSet<u32> = planted
                    .provenance
                    .stacks
                    .iter()
                    .filter(|stack| stack.space == Space::Kernel)
                    .flat_map(|stack| stack.frames.clone())
                    .collect();
                for (index, symbol) in (0..).zip(&mut planted.provenance.symbols) {
                    symbol.name =
                        Some(if of_kernel.contains(&index) { "kmalloc" } else { dressed }.to_owned());
                }
                let text = serde_json::to_string(&redact(&planted).unwrap()).unwrap();
                let left =
                    text.match_indices(NAME).next().map(|(at, _)| &text[at.saturating_sub(80)..at + 20]);
                assert_eq!(left, None, "{dressed}");
            }
        }
    }

    /// Puts back what is out of a closed list.
    fn restore(value: &mut Value, before: &Value, place: &str) {
        let (first, second) = place.split_once('/').unwrap();
        let rows = value[first][second].as_array_mut().unwrap();
        for (row, before) in rows.iter_mut().zip(before[first][second].as_array().unwrap()) {
            for field in ["moment"] {
                if !before[field].is_null() {
                    row[field] = before[field].clone();
                }
            }
            if !before["place"]["state"].is_null() {
                row["place"]["state"] = before["place"]["state"].clone();
            }
        }
    }

    #[test]
    fn well_known_libraries_stay() {
        for name in [
            "libcudart.so.12",
            "libgomp-a34b3233.so.1",
            "libpython3.11.so.1.0",
            "libc.so.6",
            "libcuda.so.550.54.14",
        ] {
            assert!(is_library(name), "{name}");
        }
        for name in [
            "libcudaX.so",
            "libgomp-mycompany.so",
            "libc.so.6.secret",
            "libc.socket",
            "ours.so",
            "libmine.so.1",
        ] {
            assert!(!is_library(name), "{name}");
        }
    }
}
