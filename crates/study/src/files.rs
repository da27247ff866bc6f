//! The files that a run leaves in its folder, and whether they are of one run.

use std::path::Path;

use spark_trace_recording::{self as recording, Recording};

use super::{read_bytes, read_theirs};
use spark_trace_analysis::belongs::{Mismatch, mismatch};

pub const RECORDING: &str = "recording.json.zst";
pub const LOG: &str = "log.txt";
/// What `record` itself printed.
pub const MESSAGES: &str = "record.txt";

#[derive(Debug)]
pub struct Files {
    /// Or why there is none.
    pub recording: Result<Recording, String>,
    pub log: String,
    /// What the benchmark wrote.
    pub results: Vec<String>,
    /// Files of the plan that are not there or cannot be read.
    pub lacking: Vec<String>,
    /// The first file that is of another run.
    pub foreign: Option<Mismatch>,
}

pub fn read(dir: &Path, results: &[String]) -> Files {
    let recording = recording::read(&dir.join(RECORDING)).map_err(|error| error.to_string());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let log = read_bytes(&dir.join(LOG)).map(text).unwrap_or_default();
    let mut files = Files { recording, log, results: vec![], lacking: vec![], foreign: None };
    for name in results {
        match read_theirs(&dir.join(name)) {
            Ok(bytes) => files.results.push(text(bytes)),
            Err(error) => files.lacking.push(with_cause(&error)),
        }
    }
    if let Ok(recording) = &files.recording {
        let named = results.iter().map(String::as_str).zip(&files.results);
        let all = [(LOG, &files.log)].into_iter().chain(named);
        files.foreign = all.into_iter().find_map(|(name, text)| mismatch(recording, name, text));
    }
    files
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_folder_of_their_run_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(LOG, "a log");
        write("bench.json", "{}");
        write("secret", "theirs");
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("link.json")).unwrap();
        let names = ["bench.json", "link.json", "none.json"].map(str::to_owned);
        let files = read(dir.path(), &names);
        assert_eq!((files.log.as_str(), files.results.as_slice()), ("a log", ["{}".to_owned()].as_slice()));
        assert_eq!(files.lacking.len(), 2, "{:?}", files.lacking);
        assert!(files.lacking[1].contains("none.json") && files.lacking[1].contains("No such file"));
        assert!(files.recording.is_err() && files.foreign.is_none());
    }

    #[test]
    fn a_log_of_another_run_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut recording = spark_trace_testing::empty();
        recording.target.argv = vec!["llama-bench".to_owned()];
        let options = recording::WriteOptions { force: false, owner: None };
        recording::write::write(&recording, &dir.path().join(RECORDING), options).unwrap();
        // The recording is of 1970.
        let object = |time: &str| {
            format!("{{\"n_prompt\": 512, \"n_gen\": 0, \"test_time\": \"{time}\", \"avg_ts\": 9.5}}")
        };
        std::fs::write(dir.path().join("bench.json"), object("1970-01-01T00:01:45Z")).unwrap();
        let names = ["bench.json".to_owned()];
        assert_eq!(read(dir.path(), &names).foreign, None);
        std::fs::write(dir.path().join("bench.json"), object("2025-11-20T09:00:00Z")).unwrap();
        assert_eq!(read(dir.path(), &names).foreign.unwrap().file, "bench.json");
    }
}
