//! A recording without the names of people, programs and files, for giving it to others.
//!
//! Every text is replaced but for those that are listed: a field that is new, and not thought of here, is hidden. The
//! same name has the same stand-in throughout, so that files, cgroups and processes can still be told apart; the key
//! is made anew for each recording and kept nowhere, so that names cannot be tried out.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use super::schema::Recording;

/// Texts that stay, by their place. `*` is any element or field; what lies below a place is meant too.
const KEPT: &[&str] = &[
    "schema",
    "tool",
    "host/kernel",
    "host/arch",
    "host/cgroup_version",
    "host/memory_controller",
    "host/model",
    "host/transparent_hugepage",
    "host/provenance",
    "host/gpus/*/name",
    "host/gpus/*/compute_capability",
    "host/nvidia/driver_version",
    "host/nvidia/cuda_driver_version",
    "host/nvidia/kernel_module",
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
    "provenance/charges/*/item",
    "provenance/driver_allocs/*/kind",
    "provenance/cuda_allocs/*/api",
    "provenance/cuda_allocs/*/kind",
    "provenance/cuda_totals/*/api",
    "provenance/cuda_failures/*/api",
    "provenance/queries/*/kind",
    "provenance/queries/*/api",
    "provenance/stacks/*/space",
    "provenance/symbols/*/name",
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

/// The recording with stand-ins for names.
pub fn redact(recording: &Recording) -> serde_json::Result<Recording> {
    let mut recording = recording.clone();
    // Whoever has a file could tell that it was there.
    recording.provenance.files.iter_mut().for_each(|file| file.content = None);
    let mut value = serde_json::to_value(&recording)?;
    Hidden { key: RandomState::new() }.visit(&mut value, &mut Vec::new());
    serde_json::from_value(value)
}

struct Hidden {
    key: RandomState,
}

impl Hidden {
    fn visit(&self, value: &mut Value, place: &mut Vec<String>) {
        match value {
            Value::String(text) if !is_kept(place) => *text = self.text(text),
            Value::Array(elements) => {
                place.push("*".to_owned());
                elements.iter_mut().for_each(|element| self.visit(element, place));
                place.pop();
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    place.push(name.clone());
                    self.visit(field, place);
                    place.pop();
                }
            }
            _ => {}
        }
    }

    /// Paths keep their depth, and what is common in them.
    fn text(&self, text: &str) -> String {
        if text.contains('/') {
            return text.split('/').map(|part| self.part(part)).collect::<Vec<_>>().join("/");
        }
        self.part(text)
    }

    fn part(&self, part: &str) -> String {
        // What kind of file a library is decides findings; its name is its maker's.
        let is_library = part.starts_with("lib") && part.contains(".so");
        let is_special = part.starts_with('[') && part.ends_with(']');
        if part.is_empty() || is_library || is_special || COMMON.contains(&part) {
            return part.to_owned();
        }
        format!("name-{:08x}", self.key.hash_one(part) as u32)
    }
}

fn is_kept(place: &[String]) -> bool {
    KEPT.iter().any(|kept| {
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
}
