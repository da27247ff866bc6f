//! Recordings made for tests, of machines and programs that there are not: every number in them is chosen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod recordings;

use spark_trace_recording::{Hook, Recording};

pub use recordings::*;

/// The hook of a recording with this name.
pub fn hook<'a>(recording: &'a mut Recording, name: &str) -> &'a mut Hook {
    let found = recording.health.hooks.iter_mut().find(|hook| hook.name == name);
    found.unwrap_or_else(|| panic!("no hook {name}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The recordings that the tests of the command line read are those of this crate.
    #[test]
    fn committed_recordings_are_current() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spark-trace/tests/data");
        for (name, recording) in [
            ("synthetic-native.json", native()),
            ("synthetic-container.json", container()),
            ("synthetic-cuda.json", cuda()),
        ] {
            let text = serde_json::to_string_pretty(&recording).unwrap() + "\n";
            let path = data.join(name);
            if std::env::var_os("SPARK_TRACE_BLESS").is_some() {
                std::fs::write(&path, text).unwrap();
            } else {
                let committed = std::fs::read_to_string(&path).unwrap();
                assert!(committed == text, "{name} is stale: run with SPARK_TRACE_BLESS=1");
            }
        }
    }
}
