//! The reader is a process of its own here, too: this program, with the one test that plays its part.

use std::{
    io::{Seek, Write},
    os::fd::AsRawFd,
};

use super::*;
use crate::unprivileged::Took;

const WAIT: Duration = Duration::from_secs(60);

/// Not a test of its own: what the reader of the others runs. Without a socket of that kind it does nothing.
#[test]
#[ignore = "plays the reader's part in other tests"]
fn acts_as_the_reader() {
    let mut kind: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    let input = std::io::stdin().as_raw_fd();
    // SAFETY: pointers to the answer and to its size.
    let failed = unsafe {
        libc::getsockopt(input, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size)
    };
    if failed == 0 && kind == libc::SOCK_SEQPACKET {
        run();
    }
}

fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn own() -> File {
    File::open("/proc/self/exe").unwrap()
}

#[inline(never)]
extern "C" fn a_function_of_this_program() -> u64 {
    std::hint::black_box(1)
}

/// Its place in this program's file, by the mapping that it lies in.
fn own_place() -> u64 {
    let address = a_function_of_this_program as *const () as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [start, end, offset] =
            [start, end, words.nth(1)?].map(|word| u64::from_str_radix(word, 16).unwrap());
        (start..end).contains(&address).then(|| address - start + offset)
    });
    found.unwrap()
}

fn is_well(client: &mut Client) {
    let names = client.names(&own(), &[own_place(), u64::MAX], WAIT).unwrap();
    assert_eq!(names[0].as_deref(), Some("spark_trace_agent::names::tests::a_function_of_this_program"));
    assert_eq!(names[1], None);
}

#[test]
fn whatever_becomes_of_the_reader_costs_the_names_of_one_file() {
    let mut client = Client::default();
    is_well(&mut client);
    for (content, why) in [
        ("abort", "(SIGABRT)"),
        ("panic", "ended (exit code "),
        ("memory", "(SIGABRT)"),
        ("lie", "invalid data"),
        ("no ELF file", "not an ELF file"),
    ] {
        let answer = client.names(&file(content), &[0], WAIT);
        let reason = answer.unwrap_err();
        assert!(reason.contains(why), "{content}: {reason}");
        is_well(&mut client);
    }
    let reason = client.names(&file("hang"), &[0], Duration::from_millis(300)).unwrap_err();
    assert_eq!(reason, "reading its symbols takes more than 300 ms");
    is_well(&mut client);
}

/// As the kernel does where memory runs out: the next file has its names all the same.
#[test]
fn a_reader_that_was_killed_while_it_waited_costs_nothing() {
    let mut client = Client::default();
    is_well(&mut client);
    let pid = client.pid().unwrap();
    // SAFETY: a plain call without pointers; the process is a child of this one that nobody has waited for.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) }, 0);
    is_well(&mut client);
    assert_ne!(client.pid(), Some(pid));
}

/// Addresses of this program's own, by its exports and by where it lies, are as far apart as they are in memory.
#[test]
fn the_reader_finds_what_a_file_exports() {
    let mut client = Client::default();
    let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = libc.lines().find(|line| line.contains(" r-xp ") && line.ends_with("/libc.so.6")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let start = u64::from_str_radix(words[0].split('-').next().unwrap(), 16).unwrap();
    let offset = u64::from_str_radix(words[2], 16).unwrap();
    let file = File::open(words[5]).unwrap();
    let wanted = ["getpid", "no_such_function", "environ"];
    let found = client.linked(&file, &wanted, offset, WAIT).unwrap().unwrap();
    let at = |name: &str| {
        found.symbols.get(name).map(|address| start.wrapping_sub(found.code).wrapping_add(*address))
    };
    assert_eq!(at("getpid"), Some(libc::getpid as *const () as u64));
    assert_eq!(at("no_such_function"), None);
    // What a program has linked in is its own; the library's lies in the library.
    assert!(at("environ").is_some());
    assert!(client.linked(&file, &wanted, u64::MAX / 2, WAIT).unwrap().is_none(), "no code is there");
    assert!(client.linked(&self::file("no ELF file"), &wanted, 0, WAIT).unwrap().is_none());
    is_well(&mut client);
}

#[test]
fn what_readers_take_is_counted() {
    let took = Took::default();
    let mut client = Client::noting(Arc::clone(&took));
    assert_eq!(*took.lock().unwrap(), None);
    is_well(&mut client);
    let first = took.lock().unwrap().unwrap();
    // The kernel's own sum of the same, in ticks, of a reader that does nothing more.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", client.pid().unwrap())).unwrap();
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|f| f.parse().unwrap())
        .collect();
    // SAFETY: a plain call without pointers.
    let tick_ns = 1_000_000_000 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    let ticks_ns = fields.iter().sum::<u64>() * tick_ns;
    assert!(first.cpu_ns > 0 && first.cpu_ns.abs_diff(ticks_ns) <= 3 * tick_ns, "{first:?}, {ticks_ns} ns");
    assert!(first.rss_peak > Some(1 << 20), "{first:?}");
    // What one took that died stays.
    client.names(&file("abort"), &[0], WAIT).unwrap_err();
    let second = took.lock().unwrap().unwrap();
    is_well(&mut client);
    let third = took.lock().unwrap().unwrap();
    assert!(first.cpu_ns <= second.cpu_ns && second.cpu_ns < third.cpu_ns, "{first:?} {second:?} {third:?}");
}

#[test]
fn the_reader_has_no_rights() {
    let mut client = Client::default();
    let names = client.names(&file("rights"), &[0], WAIT).unwrap();
    assert_eq!(names[0].as_deref(), Some("nothing"));
    let pid = client.pid().unwrap();
    // In this program the reader is a thread of the tests' harness, and what was given up is each thread's own.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let states = tasks.map(|task| std::fs::read_to_string(task.path().join("status")).unwrap());
    let status = states.into_iter().find(|status| status.contains("NoNewPrivs:\t1")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Seccomp:"), ["2"]);
    for set in ["CapPrm:", "CapEff:", "CapInh:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    if crate::is_root() {
        assert_eq!(field("Uid:"), ["65534"; 4]);
        assert_eq!(field("Gid:"), ["65534"; 4]);
        assert!(field("Groups:").is_empty());
    }
    is_well(&mut client);
}

#[test]
fn missing_names_are_reported_by_file_and_reason() {
    let mut namer = Namer::default();
    let until = Instant::now() + WAIT;
    namer.request("/bin/hostile", &Arc::new(file("abort")), &[(1, 0), (2, 8)], until);
    namer.request("/bin/good", &Arc::new(own()), &[(3, own_place())], until);
    namer.request("/bin/late", &Arc::new(own()), &[(4, own_place())], Instant::now());
    let mut found = Vec::new();
    namer.take(until, |symbol, name| found.push((symbol, name)));
    assert!(!namer.is_waiting());
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == 3 && found[0].1.ends_with("a_function_of_this_program"));
    let warnings = namer.warnings();
    let wanted = [
        "names of 2 frames in /bin/hostile are missing: the reader of symbols ended (SIGABRT)",
        "names of 1 frame in /bin/late are missing: the time limit for names was reached",
    ];
    assert_eq!(warnings, wanted);
    // Nobody waits for what is wanted now, and it is reported all the same.
    namer.request("/bin/hang", &Arc::new(file("hang")), &[(5, 0)], until);
    namer.take(Instant::now(), |_, _| ());
    assert!(namer.is_waiting());
    assert!(namer.warnings().contains(&"names of 1 frame are still being looked up".to_owned()));
    namer.give_up(NO_TIME);
    assert!(namer.warnings().iter().any(|line| line.contains("/bin/hang")));
}

#[test]
fn of_many_files_a_few_are_named() {
    let mut namer = Namer::default();
    for index in 0..600 {
        namer.miss_frames(&format!("/lib/{index}"), "it is broken", 1 + u64::from(index == 7));
    }
    let warnings = namer.warnings();
    assert_eq!(warnings.len(), MOST_NAMED + 1);
    assert_eq!(warnings[0], "names of 2 frames in /lib/7 are missing: it is broken");
    assert_eq!(warnings[MOST_NAMED], "names of 592 frames in other files are missing, too");
}
