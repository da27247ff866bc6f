//! Programs and libraries that mean harm to whoever reads them: a recording ends well, costs little memory, and says what
//! it lacks.

use std::{
    ffi::CString,
    fs::{self, File},
    io::Write,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    self, Faults, MIB, array, elf, int, record, record_words, spark_trace, text, wait_for, workload,
};

/// More than an agent needs, and less than what these files would make it take.
const MOST_MEMORY: i64 = 700 * MIB;

/// The reference workload, changed.
fn hostile(dir: &TempDir, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut program = fs::read(workload()).unwrap();
    change(&mut program);
    let path = support::path(dir, name);
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Names of the frames of user stacks that lie in a file.
fn names(recording: &Value, file: &str) -> Vec<Option<String>> {
    let symbols = array(&recording["provenance"]["symbols"]).iter().filter(|symbol| symbol["module"] == file);
    symbols.map(|symbol| symbol["name"].as_str().map(ToOwned::to_owned)).collect()
}

/// So many bytes of zeros, packed: a byte, and then over and over the longest repetition of it, in codes of the fixed table
/// (RFC 1951, 3.2.6). A library that packs takes longer.
fn bomb(bytes: u64) -> Vec<u8> {
    let mut packed = vec![0x78, 0x01];
    let (mut bits, mut count) = (0u64, 0);
    let mut push = |value: u64, length: u32, packed: &mut Vec<u8>| {
        bits |= value << count;
        count += length;
        while count >= 8 {
            packed.push(bits as u8);
            bits >>= 8;
            count -= 8;
        }
    };
    push(0b011, 3, &mut packed);
    push(0x0c, 8, &mut packed);
    for _ in 0..bytes / 258 {
        push(0xa3, 13, &mut packed);
    }
    push(0, 7 + 7, &mut packed);
    packed
}

/// What is beside the symbol table is not looked at, whatever it says: all frames have their names.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn debugging_information_that_means_harm_is_not_read() {
    let dir = support::disk_dir();
    let fifo = support::path(&dir, "fifo");
    let path = CString::new(fifo.as_str()).unwrap();
    // SAFETY: a path that ends with a NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let sections = [
        ("claims 2^63 bytes", ".debug_info", elf::COMPRESSED, elf::compressed(1 << 63, b"x")),
        ("claims 2^47 bytes", ".debug_line", elf::COMPRESSED, elf::compressed((1 << 47) - 1, b"x")),
        ("is a bomb", ".debug_info", elf::COMPRESSED, elf::compressed(1 << 30, &bomb(1 << 30))),
        ("leads to a FIFO", ".gnu_debuglink", 0, elf::debug_link(&fifo)),
        ("leads to a device", ".gnu_debuglink", 0, elf::debug_link("/dev/zero")),
        ("is rubbish", ".debug_line", 0, vec![0xff; 4096]),
    ];
    let mut faults = Faults::default();
    for (what, name, flags, content) in sections {
        let program =
            hostile(&dir, "program", |file| elf::add_section(file, name, elf::PROGBITS, flags, &content));
        let output = support::path(&dir, "out.json");
        let recorded =
            record(&output, &format!("--force -- {program} alloc --anon 32M --hold 100ms")).exited(0);
        let recording = recorded.recording();
        let found = names(&recording, &program);
        let named = found.iter().flatten().count();
        faults.expect(named > 0 && named == found.len(), || format!("{what}: {found:?}"));
        let peak = int(&recording["cost"]["agent_rss_peak"]);
        faults.expect(peak < MOST_MEMORY, || format!("{what}: {} MiB", peak / MIB));
    }
    faults.finish();
}

/// Where the symbol table itself is not to be read, its names are missing and the recording says so.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn missing_names_are_reported() {
    let dir = support::disk_dir();
    let program = hostile(&dir, "program", |file| elf::resize_sections(file, elf::SYMTAB, 1 << 62));
    let line = format!("-- {program} alloc --anon 32M --hold 100ms");
    let recording = record(&support::path(&dir, "out.json"), &line).exited(0).recording();
    let found = names(&recording, &program);
    assert!(!found.is_empty() && found.iter().all(Option::is_none), "{found:?}");
    let warnings = array(&recording["health"]["warnings"]);
    let beginning = format!("names of {} frames in {program} are missing: the table of symbols", found.len());
    assert!(warnings.iter().any(|warning| text(warning).starts_with(&beginning)), "{warnings:?}");
}

/// A page of a file, mapped as code into this process.
struct Mapped(*mut libc::c_void);

impl Mapped {
    fn new(path: &str) -> Self {
        let file = File::open(path).unwrap();
        // SAFETY: a new mapping of a page of a file, of which nothing is run.
        let mapped = unsafe {
            let protection = libc::PROT_READ | libc::PROT_EXEC;
            libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        assert_ne!(mapped, libc::MAP_FAILED);
        Self(mapped)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: what was mapped above, to which nothing points.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

/// Less than a page is a page.
const PAGE: usize = 4096;

/// Anybody may map a file that is called like the CUDA driver.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_file_called_like_the_driver_ends_nobody() {
    let dir = support::disk_dir();
    let cases = [
        ("compressed", elf::library(24, &elf::compressed(1 << 63, b"x")), 0x3000),
        ("hole", elf::library(3 << 30, &[]), 0x2000 + (3 << 30)),
        ("rubbish", b"\x7fELF rubbish".repeat(400), 0),
    ];
    let files: Vec<(String, Mapped)> = cases
        .into_iter()
        .map(|(name, content, length)| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            let path = folder.join("libcuda.so.1").to_str().unwrap().to_owned();
            let mut file = File::create(&path).unwrap();
            file.write_all(&content).unwrap();
            file.set_len(length.max(content.len() as u64)).unwrap();
            let mapped = Mapped::new(&path);
            (path, mapped)
        })
        .collect();
    let recorded = record(&support::path(&dir, "out.json"), "-- true").exited(0);
    let recording = recorded.recording();
    let libraries = array(&recording["health"]["libraries"]);
    for (path, _) in &files {
        let row = libraries.iter().find(|row| row["path"] == path.as_str()).expect(path);
        assert_eq!(row["verdict"], "not-applicable", "{row}");
        assert!(!text(&row["reason"]).is_empty() && row["attached_ns"].is_null());
    }
    assert!(int(&recording["cost"]["agent_rss_peak"]) < MOST_MEMORY);
}

/// However many such files there are, a bounded number of them is looked at, and the recording says that there were more.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn many_files_called_like_the_driver_are_bounded() {
    let dir = support::disk_dir();
    let map = |index| {
        let path = support::path(&dir, &format!("libcuda.so.{index}"));
        fs::write(&path, [0; PAGE]).unwrap();
        Mapped::new(&path)
    };
    let _files: Vec<Mapped> = (0..200).map(map).collect();
    let recording = record(&support::path(&dir, "out.json"), "-- true").exited(0).recording();
    let libraries = array(&recording["health"]["libraries"]).len();
    assert!((100..=130).contains(&libraries), "{libraries} files");
    let warnings = array(&recording["health"]["warnings"]);
    assert!(
        warnings.iter().any(|warning| text(warning).contains("calls of those files are not followed")),
        "{warnings:?}"
    );
}

/// Processes with megabytes of arguments are kept with the beginning of them.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn command_lines_are_kept_short() {
    let dir = support::disk_dir();
    let script = r#"
        word=$(head -c 100000 /dev/zero | tr '\0' A)
        i=0
        while [ $i -lt 20 ]; do
            sh -c 'sleep 0.1; :' sh $word $word $word $word $word $word $word $word $word $word
            i=$((i + 1))
        done"#;
    let output = support::path(&dir, "out.json");
    let recording = record_words(&output, &["--", "sh", "-c", script]).exited(0).recording();
    let processes = array(&recording["provenance"]["processes"]);
    let mut cut = 0;
    for process in processes {
        let words = array(&process["argv"]);
        let length: usize = words.iter().map(|word| text(word).len()).sum();
        assert!(
            words.len() <= 64 && length <= 4096 + '…'.len_utf8(),
            "{length} bytes, {} words",
            words.len()
        );
        if process["argv_cut"] == true {
            cut += 1;
            assert!(text(words.last().unwrap()).ends_with('…'));
            assert_eq!((text(&words[0]), text(&words[1])), ("sh", "-c"));
        }
    }
    // Each lives long enough to be read, though one or two may not on a busy machine.
    assert!(cut >= 10, "{cut} of 20 command lines are marked as cut");
    assert!(fs::metadata(&output).unwrap().len() < 4 << 20);
}

/// The process that reads strangers' files, as this program starts it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_reader_of_symbols_has_no_rights() {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    let failed = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) };
    assert_eq!(failed, 0);
    // SAFETY: new descriptors that nobody else has.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // What it inherits without being meant to, it closes.
    let secret = File::open("/etc/shadow").unwrap();
    // SAFETY: a descriptor of this process.
    assert_eq!(unsafe { libc::fcntl(secret.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let mut command = spark_trace();
    command.arg("read-names").stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = command.spawn().unwrap();
    drop(command);
    let mut ready = [0u8; 256];
    // SAFETY: room for as much as is said.
    let read = unsafe { libc::recv(ours.as_raw_fd(), ready.as_mut_ptr().cast(), ready.len(), 0) };
    assert_eq!(&ready[..usize::try_from(read).unwrap()], b"r", "it has given up its rights");

    let status = fs::read_to_string(format!("/proc/{}/status", reader.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let nobody = "65534 65534 65534 65534";
    let wanted = [
        ("Uid:", nobody),
        ("Gid:", nobody),
        ("Groups:", ""),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ];
    for (name, value) in wanted {
        assert_eq!(field(name), value, "{name}");
    }
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", reader.id()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", reader.id())).unwrap();
    for (name, value) in
        [("Max address space", "1073741824"), ("Max file size", "0"), ("Max core file size", "0")]
    {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert!(line.trim_start().starts_with(&format!("{value} ")), "{name}{line}");
    }
    // Its end is that of the socket.
    drop(ours);
    wait_for("the reader to end", || reader.try_wait().unwrap());
}
