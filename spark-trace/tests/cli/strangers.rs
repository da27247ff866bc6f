//! Recordings from strangers: how much of the memory they may take.

use std::fs;
use std::io::Write;
use std::process::{Command as Process, Stdio};

use serde_json::Value;

use super::*;

/// Runs it and says how it ended, what it said, and how much it had resident at most.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and says what it has used")]
fn with_peak(args: &[&str]) -> (i32, String, u64) {
    let mut command = Process::new(env!("CARGO_BIN_EXE_spark-trace"));
    let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    let (mut status, pid) = (0, i32::try_from(child.id()).unwrap());
    // SAFETY: all-zero bytes are a valid rusage: numbers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and has not been waited for; both pointers are to variables that live.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) }, pid);
    (libc::WEXITSTATUS(status), said, u64::try_from(used.ru_maxrss).unwrap() << 10)
}

#[test]
fn a_recording_from_a_stranger_does_not_fill_the_memory() {
    const MOST: u64 = 512 << 20;
    let directory = tempfile::tempdir().unwrap();
    let recording: Value = serde_json::from_slice(&fs::read(native()).unwrap()).unwrap();
    let recording = recording.to_string();
    // Small elements, of which each becomes more in memory; and a field that nobody knows. What is said of them, or nothing
    // where there is room for so many.
    let cases: [(&str, &str, &str, usize, Option<&str>); 4] = [
        ("argv", r#""argv":["#, r#""","#, 60 << 20, Some("memory")),
        ("numbers", r#""begin_ns":["#, "1,", 256 << 20, Some("times as large")),
        ("objects", r#""symbols":["#, r#"{"address":1},"#, 60 << 20, None),
        ("unknown", r#"{"#, r#""x":[[]],"#, 256 << 20, Some("times as large")),
    ];
    for (name, place, element, length, refused) in cases {
        let at = recording.find(place).unwrap() + place.len();
        let path = directory.path().join(format!("{name}.json.zst"));
        let mut packed = zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap();
        let piece = element.repeat(4096);
        packed.write_all(&recording.as_bytes()[..at]).unwrap();
        for _ in 0..length / piece.len() {
            packed.write_all(piece.as_bytes()).unwrap();
        }
        packed.write_all(&recording.as_bytes()[at..]).unwrap();
        packed.finish().unwrap();
        let (code, said, peak) = with_peak(&["show", path.to_str().unwrap()]);
        match refused {
            Some(word) => assert!(code == BAD_INPUT && said.contains(word), "{name}: {said}"),
            None => assert_eq!(code, 0, "{name}: {said}"),
        }
        assert!(peak <= MOST, "{name}: {} MiB", peak >> 20);
    }
}
