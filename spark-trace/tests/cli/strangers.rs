//! What files from strangers may cost: how much memory, and how much of the processor's time.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command as Process, Stdio};

use serde_json::{Value, json};
use spark_trace_recording::journal::{Arguments, Begin, JOURNAL_SCHEMA, Journal};
use spark_trace_recording::{Clock, Host, SCHEMA_VERSION, Target, Tool};

use super::*;

/// Of any one recording.
const MEMORY: u64 = 512 << 20;
/// Processor time, seconds: an answer within 5 s, and room for what runs between two looks at the clock. A busy machine does
/// not make it more.
const TIME: f64 = 5.5;

/// How a run ended, what it said, and what it took.
#[derive(Debug)]
struct Ended {
    code: i32,
    said: String,
    memory: u64,
    seconds: f64,
}

/// Runs it; `feed` writes its standard input.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and says what it has used")]
fn run_with(args: &[&str], feed: impl FnOnce(&mut dyn Write) + Send) -> Ended {
    let mut command = Process::new(env!("CARGO_BIN_EXE_spark-trace"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stderr) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
    let mut said = String::new();
    std::thread::scope(|scope| {
        scope.spawn(move || feed(&mut stdin));
        stderr.read_to_string(&mut said).unwrap();
    });
    let (mut status, pid) = (0, i32::try_from(child.id()).unwrap());
    // SAFETY: all-zero bytes are a valid rusage: numbers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and has not been waited for; both pointers are to variables that live.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) }, pid);
    assert!(libc::WIFEXITED(status), "{args:?}: {said}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ended {
        code: libc::WEXITSTATUS(status),
        said,
        memory: u64::try_from(used.ru_maxrss).unwrap() << 10,
        seconds: seconds(used.ru_utime) + seconds(used.ru_stime),
    }
}

fn run(args: &[&str]) -> Ended {
    run_with(args, |_| ())
}

impl Ended {
    /// An answer or one clear error, within bounds.
    fn is_within_bounds(&self, what: &str, recordings: u32) {
        assert!(self.memory <= MEMORY * u64::from(recordings), "{what}: {} MiB", self.memory >> 20);
        assert!(self.seconds <= TIME * f64::from(recordings), "{what}: {} s", self.seconds);
        match self.code {
            0 => assert!(self.said.is_empty(), "{what}: {}", self.said),
            BAD_INPUT => assert_eq!(self.said.lines().count(), 1, "{what}: {}", self.said),
            code => panic!("{what}: {code}, {}", self.said),
        }
    }
}

/// A recording with `element` at `place` so many times that they have `length` bytes, in pieces.
fn grown<'a>(
    recording: &'a str,
    place: &str,
    element: &'a str,
    length: usize,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (before, after) = recording.as_bytes().split_at(recording.find(place).unwrap() + place.len());
    let elements = std::iter::repeat_n(element.as_bytes(), length / element.len());
    std::iter::once(before).chain(elements).chain(std::iter::once(after))
}

fn write<'a>(mut to: impl Write, pieces: impl Iterator<Item = &'a [u8]>) {
    pieces.for_each(|piece| to.write_all(piece).unwrap());
    to.flush().unwrap();
}

fn text(name: String) -> String {
    serde_json::from_slice::<Value>(&fs::read(name).unwrap()).unwrap().to_string()
}

#[test]
fn a_recording_from_a_stranger_fills_neither_memory_nor_time() {
    let directory = tempfile::tempdir().unwrap();
    let recording = text(native());
    // Small elements, of which each becomes more in memory; and a field that nobody knows. One of these words is said, or
    // nothing where there is room and time for so many: a build without optimisation runs out of time first.
    let cases: [(&str, &str, &str, usize, &[&str]); 5] = [
        ("argv", r#""argv":["#, r#""","#, 60 << 20, &["of memory", "of processor time"]),
        ("numbers", r#""begin_ns":["#, "1,", 96 << 20, &["times as large", "of processor time"]),
        ("objects", r#""symbols":["#, r#"{"address":1},"#, 32 << 20, &["", "of processor time"]),
        ("unknown", "{", r#""x":[[]],"#, 96 << 20, &["times as large", "of processor time"]),
        ("blanks", "{", "                ", 96 << 20, &["times as large", "of processor time"]),
    ];
    for (name, place, element, length, words) in cases {
        let path = directory.path().join(format!("{name}.json.zst"));
        let mut packed = zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap();
        let piece = element.repeat(4096);
        write(&mut packed, grown(&recording, place, &piece, length));
        packed.finish().unwrap();
        let ended = run(&["show", path.to_str().unwrap()]);
        ended.is_within_bounds(name, 1);
        let said = |word: &&str| if word.is_empty() { ended.code == 0 } else { ended.said.contains(word) };
        assert!(words.iter().any(said), "{name}: {ended:?}");
    }
}

/// Files that are not recordings in other ways, and the words that say so.
#[test]
fn text_that_is_made_to_be_slow_is_refused_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let recording = text(native());
    let digits = "7".repeat(4096);
    let cases: [(&str, &str, &str, usize, &[&str]); 4] = [
        ("nested", r#""argv":"#, "[", 16 << 20, &["not JSON", "of processor time"]),
        ("a number", r#""begin_ns":["#, &digits, 16 << 20, &["number out of range", "of processor time"]),
        ("a string", r#""argv":[""#, &digits, 16 << 20, &[""]),
        ("an object", "{", r#""schema_version":2,"#, 16 << 20, &["duplicate", "of processor time"]),
    ];
    for (name, place, element, length, words) in cases {
        let path = directory.path().join(name);
        write(fs::File::create(&path).unwrap(), grown(&recording, place, element, length));
        let ended = run(&["show", path.to_str().unwrap()]);
        ended.is_within_bounds(name, 1);
        assert!(words.iter().any(|word| ended.said.contains(word)), "{name}: {ended:?}");
    }
}

/// What an analysis does for each element once, it must not do for each pair of them.
#[test]
fn long_lists_are_analysed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    // An element with `N` in it, which is another number each time.
    let cases = [
        (
            "charge stacks",
            container(),
            r#""charge_stacks":["#,
            r#"{"cgroup":N,"stack":4,"charges":1,"bytes_charged":4096,"charged":[0,4096,4096]},"#,
        ),
        (
            "file systems",
            cuda(),
            r#""tmpfs":["#,
            r#"{"at_ns":99000000000,"mount_point":"/N","kind":"tmpfs","used":1,"files":[]},"#,
        ),
        (
            "cgroups",
            container(),
            r#""cgroups":[{"id":1,"path":"/","target":false},"#,
            r#"{"id":N,"path":"/N","target":true},"#,
        ),
    ];
    for (name, recording, place, element) in cases {
        let recording = text(recording);
        let path = directory.path().join("long.json");
        // Ids of the recording's own are smaller.
        let elements: String =
            (0..30_000).map(|n| element.replace('N', &(1_000_000 + n).to_string())).collect();
        write(fs::File::create(&path).unwrap(), grown(&recording, place, &elements, elements.len()));
        let path = path.to_str().unwrap();
        for (args, recordings) in [(&["show", path, "--all"][..], 1), (&["diff", path, path], 2)] {
            let ended = run(args);
            ended.is_within_bounds(name, recordings);
            assert_eq!(ended.code, 0, "{name}: {ended:?}");
        }
    }
}

type Feed<'a> = dyn Fn(&mut dyn Write) + Sync + 'a;

/// Standard input may be without end.
#[test]
fn a_stream_without_end_comes_to_one() {
    let recording = text(native());
    // Ends when the reader has gone.
    let blanks = |to: &mut dyn Write| while to.write_all(&[b' '; 1 << 16]).is_ok() {};
    let packed = |to: &mut dyn Write| {
        let frame = zstd::encode_all(&[b' '; 1 << 20][..], 1).unwrap();
        while to.write_all(&frame).is_ok() {}
    };
    let begun = |to: &mut dyn Write| {
        let end = recording.find(r#""samples""#).unwrap();
        let _ = to.write_all(&recording.as_bytes()[..end]);
        blanks(to);
    };
    let feeds: [(&str, &Feed<'_>); 3] =
        [("blanks", &blanks), ("packed blanks", &packed), ("a recording that goes on", &begun)];
    for (name, feed) in feeds {
        let ended = run_with(&["show", "-"], |to| feed(to));
        ended.is_within_bounds(name, 1);
        assert_eq!(ended.code, BAD_INPUT, "{name}");
    }
    // And a recording through a pipe is one.
    for packed in [false, true] {
        let bytes = if packed {
            zstd::encode_all(recording.as_bytes(), 1).unwrap()
        } else {
            recording.clone().into()
        };
        let ended = run_with(&["show", "-"], |to| to.write_all(&bytes).unwrap());
        assert_eq!((ended.code, ended.said.as_str()), (0, ""));
    }
}

/// A window as long as the format allows: the decoder would need all of it as memory.
#[test]
fn a_long_window_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("window.json.zst");
    // Frame header by hand (RFC 8878, 3.1.1): no content size, and a window of 2^41 bytes; then one raw block of nothing.
    fs::write(&path, [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00]).unwrap();
    let ended = run(&["show", path.to_str().unwrap()]);
    ended.is_within_bounds("window", 1);
    assert!(ended.said.contains("damaged zstd data"), "{ended:?}");
}

/// What never ends, or never begins, is no file.
#[test]
fn what_is_no_file_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let status = Process::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(status.success());
    let (fifo, own) = (fifo.to_str().unwrap(), native());
    for path in [fifo, "/dev/zero", directory.path().to_str().unwrap()] {
        for args in [
            &["show", path][..],
            &["diff", &own, path],
            &["kv", path],
            &["kv", &own, "--log", path],
            &["report", path, "-o", "-"],
            &["export", path, "--to", "csv"],
            &["top", "--once", "--replay", path],
        ] {
            let ended = run(args);
            ended.is_within_bounds(path, 1);
            assert!(ended.code == BAD_INPUT && ended.said.contains("not a file"), "{args:?}: {ended:?}");
        }
    }
}

/// A study that nobody ran: very many models, or very many runs of one.
#[test]
fn the_results_of_a_stranger_s_study_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    for (name, models, runs) in [("models", 2_000, 3), ("runs", 1, 10_000)] {
        let run = |number: usize| {
            let throughput = 100.0 + (number * 7919 % 101) as f64 / 10.0;
            json!({"iteration": number, "timestamp": "20251101_042404", "output_throughput": throughput})
        };
        let of_model = || -> Value {
            let runs: Vec<_> = (1..=runs).map(run).collect();
            json!({"native": runs, "container": runs})
        };
        let study: serde_json::Map<_, _> = (0..models).map(|n| (format!("m{n}"), of_model())).collect();
        let (file, study_dir) = (directory.path().join("all.json"), directory.path().join(name));
        fs::write(&file, json!({ "models": study }).to_string()).unwrap();
        let (file, study_dir) = (file.to_str().unwrap(), study_dir.to_str().unwrap());
        let ended = self::run(&["study", "import", "--format", "benchmark-spark", file, "--dir", study_dir]);
        assert!(ended.code == 0 && ended.memory <= MEMORY && ended.seconds <= TIME, "{name}: {ended:?}");
        self::run(&["study", "report", study_dir]).is_within_bounds(name, 1);
    }
}

/// A journal is as long as whoever wrote it wants, and so is each line of it.
#[test]
fn a_journal_from_a_stranger_fills_neither_memory_nor_time() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Begin {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        tool: Tool::default(),
        host: Host::default(),
        clock: Clock::default(),
        target: Target::default(),
    };
    let mut journal = Vec::new();
    drop(Journal::begin_with(&mut journal, begin, Arguments::Hidden).unwrap());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (path, output) = (path("x.json.partial"), path("out.json"));
    // A line of 3 GiB, which take no room on the disk.
    fs::write(&path, &journal).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
    let ended = run(&["recover", &path, "-o", &output]);
    ended.is_within_bounds("a long line", 1);
    assert!(ended.code == BAD_INPUT && ended.said.contains("line 2 has more than 256 MiB"), "{ended:?}");
    assert!(!std::path::Path::new(&output).exists());
    // An honest one of nothing but its beginning.
    fs::write(&path, &journal).unwrap();
    let ended = run(&["recover", &path, "-o", &output]);
    assert!(ended.code == 0 && ended.said.contains("recovered 0 readings"), "{ended:?}");
}
