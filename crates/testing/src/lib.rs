//! Recordings made for tests, of machines and programs that there are not: every number in them is chosen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod recordings;

pub use recordings::*;

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
