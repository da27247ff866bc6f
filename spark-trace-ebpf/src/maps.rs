//! All maps. Capacities and their reasons are in [`spark_trace_common::capacities`].
//!
//! All are preallocated: a map that takes memory when it is filled would allocate pages inside the program
//! that watches page allocations, and the kernel skips a program that would interrupt itself.

use core::{arch::asm, cell::UnsafeCell};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_map_def, bpf_map_type::BPF_MAP_TYPE_STACK_TRACE},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use spark_trace_common::{
    capacities::{self as cap, LossKind},
    config::{CLIENTS_LEN, CONTROL_GENERATION, CONTROL_LEN, PLACE_LEN},
    event::FileNameEvent,
    hook::HOOKS,
    map_records::{
        Burst, Bystander, CallKey, ChargeKey, ChargeLevel, ChargePlace, ChargeStack, ChargeStackKey,
        DriverAlloc, DriverKey, DriverObject, DriverRow, FileKey, FileTotals, Heap, LibraryKey, LiveFrames,
        MappingCache, MappingTotals, PageCache, PageKey, PageRow, PendingAlloc, PendingCall, PendingCharge,
        Rate, Run, ThreadContexts,
    },
    python::PythonProcess,
};

/// Rare, discrete changes; user space may make it smaller or larger.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(cap::RING_BYTES, 0);

/// When the reader of `EVENTS` was last woken for events that nobody waits for.
#[map]
pub(crate) static WOKEN: Array<u64> = Array::with_max_entries(1, 0);

/// What could not be taken, by [`LossKind`].
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(LossKind::ALL.len() as u32, 0);

/// Runs of each hook's program, in the order of `HOOKS`. The kernel counts runs too, but only while its
/// BPF statistics are on, which cost more than most of these programs do.
#[map]
pub(crate) static RUNS: PerCpuArray<Run> = PerCpuArray::with_max_entries(HOOKS.len() as u32, 0);

/// Settings that change while tracing.
#[map]
pub(crate) static CONTROL: Array<u32> = Array::with_max_entries(CONTROL_LEN, 0);

/// Clients of container engines among the target's processes.
#[map]
pub(crate) static CLIENTS: Array<u64> = Array::with_max_entries(CLIENTS_LEN, 0);

/// Selected cgroups of the memory hierarchy.
#[map]
pub(crate) static TARGET_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(cap::TARGET_CGROUPS, 0);

/// Processes followed by pid, with their descendants.
#[map]
pub(crate) static TARGET_PIDS: HashMap<u32, u32> = HashMap::with_max_entries(cap::TARGET_PIDS, 0);

/// Processes that are spark-traces; user space of each fills it ([`spark_trace_common::config::BESIDE_OTHER`]).
#[map]
pub(crate) static BESIDE: HashMap<u32, u32> = HashMap::with_max_entries(cap::BESIDE, 0);

/// Where page frames are, and how many page rows there are.
#[map]
pub(crate) static PLACE: Array<u64> = Array::with_max_entries(PLACE_LEN, 0);

/// Number of the row of a key.
#[map]
pub(crate) static PAGE_KEYS: HashMap<PageKey, u32> = HashMap::with_max_entries(cap::PAGE_ROWS, 0);

/// Page allocations by row; row 0 stays empty.
#[map]
pub(crate) static PAGE_ROWS: Array<PageRow> = Array::with_max_entries(cap::PAGE_ROWS, 0);

#[map]
pub(crate) static PAGE_CACHE: PerCpuArray<PageCache> = PerCpuArray::with_max_entries(cap::PAGE_PLACES, 0);

/// The row of each page frame; user space makes it as large as the machine needs.
#[map]
pub(crate) static LIVE: Array<LiveFrames> = Array::with_max_entries(1, 0);

/// Elements of `LIVE` that may have a row, a bit for each; user space makes it as large as `LIVE` needs.
#[map]
pub(crate) static TOUCHED: Array<u64> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static FILES: HashMap<FileKey, FileTotals> = HashMap::with_max_entries(cap::FILES, 0);

#[map]
pub(crate) static MAPPING_TOTALS: HashMap<u32, MappingTotals> =
    HashMap::with_max_entries(cap::MAPPING_TOTALS, 0);

#[map]
pub(crate) static MAPPING_CACHE: PerCpuArray<MappingCache> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static BYSTANDERS: PerCpuArray<Bystander> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static HEAPS: HashMap<u32, Heap> = HashMap::with_max_entries(cap::HEAPS, 0);

#[map]
pub(crate) static CHARGES: HashMap<ChargeKey, u64> = HashMap::with_max_entries(cap::CHARGES, 0);

/// What selected cgroups were charged, each with its descendants.
#[map]
pub(crate) static CHARGE_LEVELS: HashMap<u64, ChargeLevel> = HashMap::with_max_entries(cap::CHARGE_LEVELS, 0);

#[map]
pub(crate) static CHARGE_STACKS: HashMap<ChargeStackKey, ChargeStack> =
    HashMap::with_max_entries(cap::CHARGE_STACKS, 0);

/// [`cap::CHARGE_PLACES`] for each of the programs on page counters.
#[map]
pub(crate) static CHARGE_CACHE: PerCpuArray<ChargePlace> =
    PerCpuArray::with_max_entries(3 * cap::CHARGE_PLACES, 0);

#[map]
pub(crate) static PENDING_CHARGES: LruHashMap<u64, PendingCharge> =
    LruHashMap::with_max_entries(cap::PENDING_CHARGES, 0);

#[map]
pub(crate) static DRIVER_ROWS: HashMap<DriverKey, DriverRow> = HashMap::with_max_entries(cap::DRIVER_ROWS, 0);

/// The driver's allocations that live; user space makes it small where there is no driver.
#[map]
pub(crate) static DRIVER_ALLOCS: HashMap<DriverObject, DriverAlloc> =
    HashMap::with_max_entries(cap::DRIVER_ALLOCS, 0);

/// Those under way, by stack pointer.
#[map]
pub(crate) static PENDING_ALLOCS: LruHashMap<u64, PendingAlloc> =
    LruHashMap::with_max_entries(cap::PENDING_CHARGES, 0);

#[map]
pub(crate) static BURSTS: Array<Burst> = Array::with_max_entries(cap::BURSTS, 0);

#[map]
pub(crate) static PENDING_CALLS: LruHashMap<CallKey, PendingCall> =
    LruHashMap::with_max_entries(cap::PENDING_CALLS, 0);

/// By thread: process and thread number, as bpf_get_current_pid_tgid gives them.
#[map]
pub(crate) static THREAD_CONTEXTS: LruHashMap<u64, ThreadContexts> =
    LruHashMap::with_max_entries(cap::THREAD_CONTEXTS, 0);

/// Library files that nobody need be paused for.
#[map]
pub(crate) static WATCHED_FILES: HashMap<LibraryKey, u32> = HashMap::with_max_entries(cap::WATCHED_FILES, 0);

/// Processes that were paused and not let go on yet, each with the time.
#[map]
pub(crate) static PAUSED: HashMap<u32, u64> = HashMap::with_max_entries(cap::PAUSED, 0);

/// Where the interpreters of processes keep their frames; user space finds it out, of each process before it calls the CUDA driver.
#[map]
pub(crate) static PYTHON_PROCESSES: HashMap<u32, PythonProcess> =
    HashMap::with_max_entries(cap::PYTHON_PROCESSES, 0);

#[map]
pub(crate) static PYTHON_RATE: PerCpuArray<Rate> = PerCpuArray::with_max_entries(1, 0);

/// Copies of user stacks, each made before the event that names it. A buffer of their own, so that no event is lost for them; user
/// space makes it large where stacks are wanted.
#[map]
pub(crate) static STACK_COPIES: RingBuf = RingBuf::with_byte_size(cap::STACK_COPY_RING_BYTES, 0);

#[map]
pub(crate) static COPY_RATE: PerCpuArray<Rate> = PerCpuArray::with_max_entries(1, 0);

/// Room to build a file name in: too large for the 512-byte BPF stack.
#[map]
pub(crate) static FILE_NAME_SCRATCH: PerCpuArray<FileNameEvent> = PerCpuArray::with_max_entries(1, 0);

/// A stack trace map of our own depth: aya-ebpf's type always has 127 frames, and unwinding costs by the frame.
#[repr(transparent)]
pub(crate) struct Stacks<const DEPTH: usize>(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is never read or written; the loader replaces its address by the map's.
unsafe impl<const DEPTH: usize> Sync for Stacks<DEPTH> {}

impl<const DEPTH: usize> Stacks<DEPTH> {
    const fn new(max_entries: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_STACK_TRACE,
            key_size: 4,
            value_size: (DEPTH * 8) as u32,
            max_entries,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0.get().cast()
    }
}

#[unsafe(link_section = "maps")]
#[unsafe(no_mangle)]
pub(crate) static KERNEL_STACKS: Stacks<{ cap::KERNEL_STACK_DEPTH }> = Stacks::new(cap::KERNEL_STACKS);

/// Counts a run of the hook at `index` in `HOOKS`.
#[inline(always)]
pub(crate) fn hit(index: u32) {
    if let Some(run) = RUNS.get_ptr_mut(index) {
        // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs.
        unsafe { (*run).hits += 1 };
    }
}

/// The same of a hook whose programs may be preempted by one another.
#[inline(always)]
pub(crate) fn hit_of_several(index: u32) {
    if let Some(run) = RUNS.get_ptr_mut(index) {
        // SAFETY: as in `hit`.
        unsafe { add(&raw mut (*run).hits, 1) };
    }
}

/// Counts a run of the hook at `index` for `page`, and leaves word of it for the hook that stands in. Returns
/// the page's address as a number: the verifier allows no arithmetic on a pointer to a kernel structure, and
/// what is read from a map is none.
#[inline(always)]
pub(crate) fn run(index: u32, page: u64) -> u64 {
    let Some(run) = RUNS.get_ptr_mut(index) else { return 0 };
    // SAFETY: as in `hit`. Volatile, since an interrupt on this CPU may read it.
    unsafe {
        (*run).hits += 1;
        (&raw mut (*run).last).write_volatile(page);
        (&raw const (*run).last).read_volatile()
    }
}

/// A pointer to a kernel structure as a number, by way of the slot of the hook at `index`: see [`run`].
#[inline(always)]
pub(crate) fn number(index: u32, pointer: u64) -> u64 {
    let Some(run) = RUNS.get_ptr_mut(index) else { return 0 };
    // SAFETY: as in `run`.
    unsafe {
        (&raw mut (*run).last).write_volatile(pointer);
        (&raw const (*run).last).read_volatile()
    }
}

/// Generation of the selection.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    CONTROL.get(CONTROL_GENERATION).copied().unwrap_or(0)
}

/// Makes all CPUs forget what they remember of the selection.
#[inline(always)]
pub(crate) fn selection_changed() {
    if let Some(generation) = CONTROL.get_ptr_mut(CONTROL_GENERATION) {
        // SAFETY: a live map value. Two changes at once may count as one, which is all the same.
        unsafe { *generation = (*generation).wrapping_add(1) };
    }
}

/// The row of `key`, which begins as `first`; nothing where the map is full.
#[inline(always)]
pub(crate) fn row_of<K, V>(map: &HashMap<K, V>, key: &K, first: &V) -> Option<*mut V> {
    map.get_ptr_mut(key).or_else(|| {
        // Where another CPU has made it since, that one is found.
        let _ = map.insert(key, first, u64::from(BPF_NOEXIST));
        map.get_ptr_mut(key)
    })
}

/// Adds to a counter that other CPUs add to as well.
///
/// In assembly because core offers no read-modify-write atomics for the BPF target, although every BPF
/// version has this instruction.
///
/// # Safety
/// `counter` must point into a live map value.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: aligned and live by the caller's word.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) value, options(nostack)) };
}

/// Adds one to a counter that other CPUs add to as well, and returns what it was before.
///
/// # Safety
/// `counter` must point into a live map value.
#[inline(always)]
pub(crate) unsafe fn next(counter: *mut u64) -> u64 {
    let mut value = 1;
    // SAFETY: aligned and live by the caller's word.
    unsafe {
        asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) counter, inout(reg) value, options(nostack))
    };
    value
}

/// Replaces a word that still is `old`; says whether it was.
///
/// # Safety
/// `word` must point into a live map value.
#[inline(always)]
pub(crate) unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    let was: u64;
    // SAFETY: aligned and live by the caller's word.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) word,
            in(reg) new,
            inout("r0") old => was,
            options(nostack)
        )
    };
    was == old
}

/// Sets bits of a word that other CPUs change as well. What was written before is seen by whoever sees them.
///
/// # Safety
/// `word` must point into a live map value.
#[inline(always)]
pub(crate) unsafe fn set_bits(word: *mut u64, bits: u64) {
    // SAFETY: aligned and live by the caller's word.
    // With the value, which is not used: without it the kernel's operation orders nothing on arm64.
    unsafe {
        asm!("{1} = atomic_fetch_or((u64 *)({0} + 0), {1})", in(reg) word, inout(reg) bits => _, options(nostack))
    };
}

/// Empties a word that other CPUs change as well, and returns what was in it.
///
/// # Safety
/// `word` must point into a live map value.
#[inline(always)]
pub(crate) unsafe fn take_bits(word: *mut u64) -> u64 {
    let mut bits = 0;
    // SAFETY: aligned and live by the caller's word.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) word, inout(reg) bits, options(nostack)) };
    bits
}
