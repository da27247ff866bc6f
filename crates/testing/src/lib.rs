//! What tests share: recordings of machines and programs that there are not, every number in them chosen; and the
//! comparison with committed texts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod golden;
mod recordings;

use spark_trace_recording::{Hook, Recording};

pub use golden::golden;
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
            golden(data.join(name), &(serde_json::to_string_pretty(&recording).unwrap() + "\n"));
        }
    }
}
