//! The stack of this program itself, against what backtrace(3) finds in it.

use std::{ffi::c_void, fs::File, io::Write, os::unix::fs::FileExt};

use spark_trace_common::{capacities::STACK_COPY_BYTES, stack_copy::REGISTERS};

use super::*;
use crate::maps;
use walk::Copied;

const WAIT: Duration = Duration::from_secs(60);

unsafe extern "C" {
    fn backtrace(frames: *mut *mut c_void, size: libc::c_int) -> libc::c_int;
}

/// What the kernel side copies of a thread that is here, and its return addresses by the C library.
#[inline(never)]
fn copied_here() -> (Copied, Vec<u64>) {
    let mut frames = [std::ptr::null_mut(); 256];
    // SAFETY: as many elements as it says.
    let count = unsafe { backtrace(frames.as_mut_ptr(), frames.len() as libc::c_int) };
    // SAFETY: all zeros is a valid context, which the call fills.
    let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::getcontext(&raw mut context) }, 0);
    let (instruction, registers) = registers(&context);
    let stack_pointer = registers[if cfg!(target_arch = "aarch64") { 31 } else { 7 }];
    let mut bytes = vec![0; STACK_COPY_BYTES];
    let memory = File::open("/proc/self/mem").unwrap();
    let read = memory.read_at(&mut bytes, stack_pointer).unwrap();
    bytes.truncate(read);
    let copied = Copied { instruction, registers, start: stack_pointer, bytes };
    // The frames of backtrace(3) itself and of this function are at other places in them.
    (copied, frames[1..count as usize].iter().map(|frame| *frame as u64).collect())
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (u64, [u64; REGISTERS]) {
    let of = |register: libc::c_int| context.uc_mcontext.gregs[register as usize] as u64;
    let mut registers = [0; REGISTERS];
    let numbers = [
        (3, libc::REG_RBX),
        (6, libc::REG_RBP),
        (7, libc::REG_RSP),
        (12, libc::REG_R12),
        (13, libc::REG_R13),
        (14, libc::REG_R14),
        (15, libc::REG_R15),
    ];
    numbers.into_iter().for_each(|(number, register)| registers[number] = of(register));
    (of(libc::REG_RIP), registers)
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (u64, [u64; REGISTERS]) {
    let mut registers = [0; REGISTERS];
    registers[..31].copy_from_slice(&context.uc_mcontext.regs);
    registers[31] = context.uc_mcontext.sp;
    (context.uc_mcontext.pc, registers)
}

/// This program's code; `file` replaces what a mapping shows.
fn own_code(file: impl Fn(&maps::Mapping) -> Option<File>) -> Arc<Ranges> {
    let code = maps::code(std::process::id()).unwrap();
    let ranges = code.iter().filter(|mapping| mapping.is_file()).enumerate().map(|(number, mapping)| Range {
        start: mapping.start,
        end: mapping.end,
        offset: mapping.offset,
        number: number as u64,
        file: file(mapping).map(Arc::new),
    });
    Arc::new(Ranges { number: 1, ranges: ranges.collect() })
}

fn really(mapping: &maps::Mapping) -> Option<File> {
    File::open(&mapping.name).ok()
}

fn walked(thread: &mut Thread, copied: &Copied, ranges: Arc<Ranges>) -> Walk {
    match thread.walk(Request { copied: copied.clone(), ranges }, WAIT) {
        Waited::Walk(walk) => walk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_stack_of_this_program_is_that_of_backtrace() {
    let mut thread = Thread::start(Took::default()).unwrap();
    let (copied, wanted) = copied_here();
    for _ in 0..2 {
        let walk = walked(&mut thread, &copied, own_code(really));
        assert_eq!(walk.end, End::Outermost);
        assert_eq!(walk.frames[1..], wanted, "{walk:x?}");
    }
    let few = Copied { bytes: copied.bytes[..64].to_vec(), ..copied.clone() };
    let walk = walked(&mut thread, &few, own_code(really));
    assert_eq!(walk.end, End::NotCopied);
    assert!(wanted.starts_with(&walk.frames[1..]));
}

#[test]
fn nothing_is_guessed_where_there_are_no_tables() {
    let mut thread = Thread::start(Took::default()).unwrap();
    let (copied, _) = copied_here();
    let nowhere = Arc::new(Ranges { number: 7, ranges: Vec::new() });
    let walk = walked(&mut thread, &copied, nowhere);
    assert_eq!((walk.frames.len(), walk.end), (1, End::Unknown(copied.instruction)));
    let no_file = Arc::new(Ranges { number: 8, ranges: own_code(|_| None).ranges.clone() });
    let walk = walked(&mut thread, &copied, no_file);
    assert_eq!((walk.frames.len(), walk.end), (1, End::NoTable));
    let garbage = |_: &maps::Mapping| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0x7f; 4096]).unwrap();
        Some(file)
    };
    let mut ranges = own_code(garbage).ranges.clone();
    ranges.iter_mut().for_each(|range| range.number += 1000);
    let walk = walked(&mut thread, &copied, Arc::new(Ranges { number: 9, ranges }));
    assert_eq!((walk.frames.len(), walk.end), (1, End::NoTable));
}

/// A file that is cut short while it is mapped: that process dies of it, and another one unwinds the next stack.
#[test]
fn the_death_of_the_process_that_unwinds_costs_one_stack() {
    let took = Took::default();
    let mut thread = Thread::start(Arc::clone(&took)).unwrap();
    let (copied, wanted) = copied_here();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/proc/self/exe", &path).unwrap();
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let file = |mapping: &maps::Mapping| {
        if own.to_str() == Some(&mapping.name) { File::open(&path).ok() } else { really(mapping) }
    };
    let ranges = own_code(file);
    assert_eq!(walked(&mut thread, &copied, Arc::clone(&ranges)).frames[1..], wanted);
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let died = thread.walk(Request { copied: copied.clone(), ranges: Arc::clone(&ranges) }, WAIT);
    assert!(matches!(died, Waited::Failed), "{died:?}");
    // The other one does not map what the file is too short for.
    let walk = walked(&mut thread, &copied, ranges);
    assert_eq!((walk.frames.len(), walk.end), (1, End::NoTable));
    let good = Arc::new(Ranges { number: 2, ranges: own_code(really).ranges.clone() });
    let mut good = Arc::unwrap_or_clone(good);
    good.ranges.iter_mut().for_each(|range| range.number += 1000);
    assert_eq!(walked(&mut thread, &copied, Arc::new(good)).frames[1..], wanted);
    assert!(took.lock().unwrap().unwrap().cpu_ns > 0);
}
