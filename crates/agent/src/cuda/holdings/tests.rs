use spark_trace_common::cuda::{ARGS, FUNCTIONS, OUTS};

use super::*;

/// A call as the kernel side sends it, with six arguments and what lay behind pointers.
fn call(pid: u32, symbol: &str, args: &[u64], outs: &[u64], result: i32) -> Call {
    let function = FUNCTIONS.iter().find(|f| f.symbol == symbol).unwrap();
    let mut all = [0; ARGS];
    all[..args.len()].copy_from_slice(args);
    let mut read = [None; OUTS];
    for (slot, out) in read.iter_mut().zip(outs) {
        *slot = Some(*out);
    }
    Call {
        function,
        begin_ns: 1,
        end_ns: 1,
        pid,
        tid: pid,
        cgroup: 1,
        result,
        args: all,
        outs: read,
        context: None,
        stack: Vec::new(),
        copy: None,
        python: None,
    }
}

fn apply(holdings: &mut Holdings, symbol: &str, args: &[u64], outs: &[u64]) -> Effect {
    holdings.apply(&call(7, symbol, args, outs, 0), None, None)
}

fn live(holdings: &Holdings, kind: &str) -> u64 {
    holdings.now().by_kind.get(kind).copied().unwrap_or(0)
}

#[test]
fn what_is_allocated_is_held_until_it_is_freed() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuMemAllocManaged", &[0x10, 50, 1], &[0x2000]);
    apply(&mut holdings, "cuMemAllocAsync_ptsz", &[0x10, 7, 0], &[0x3000]);
    assert_eq!((live(&holdings, "device"), live(&holdings, "managed")), (100, 50));
    assert_eq!(live(&holdings, "device-all"), 107);
    for pointer in [0x1000, 0x2000, 0x3000] {
        apply(&mut holdings, "cuMemFree_v2", &[pointer], &[]);
    }
    assert_eq!((live(&holdings, "device-all"), live(&holdings, "managed")), (0, 0));
    let all = holdings.totals().into_iter().find(|t| t.pid.is_none() && t.kind == "device-all").unwrap();
    assert_eq!((all.peak, all.allocs, all.frees, all.implicit_frees), (107, 2, 2, 0));
}

#[test]
fn a_pitched_allocation_is_pitch_times_height() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAllocPitch_v2", &[0x10, 0x18, 100, 3, 4], &[0x1000, 512]);
    assert_eq!(live(&holdings, "device"), 1536);
}

#[test]
fn a_failure_is_an_event_and_holds_nothing() {
    let mut holdings = Holdings::default();
    let refused = call(7, "cuMemAlloc_v2", &[0x10, 1 << 50], &[0], 2);
    let Effect::Failure(failure) = holdings.apply(&refused, Some(3), None) else { panic!("no failure") };
    assert_eq!((failure.size, failure.result, failure.stack), (Some(1 << 50), 2, Some(3)));
    assert_eq!(failure.result_name.as_deref(), Some("CUDA_ERROR_OUT_OF_MEMORY"));
    assert_eq!(live(&holdings, "device"), 0);
    assert_eq!(holdings.rows(0)[0].failures, 1);
}

#[test]
fn freeing_nothing_or_the_unknown_takes_nothing_away() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuMemFree_v2", &[0], &[]);
    assert_eq!(holdings.unknown_frees, 0);
    apply(&mut holdings, "cuMemFree_v2", &[0x9999], &[]);
    assert_eq!(holdings.unknown_frees, 1);
    // The same address in another process is another's.
    holdings.apply(&call(8, "cuMemFree_v2", &[0x1000], &[], 0), None, None);
    assert_eq!((holdings.unknown_frees, live(&holdings, "device")), (2, 100));
    // Host memory is freed by another function.
    apply(&mut holdings, "cuMemFreeHost", &[0x1000], &[]);
    assert_eq!(live(&holdings, "device"), 100);
}

#[test]
fn physical_memory_lives_while_it_is_mapped() {
    let mut holdings = Holdings::default();
    let device = 1;
    apply(&mut holdings, "cuMemCreate", &[0x10, 4096, 0x20, 0], &[77, device]);
    apply(&mut holdings, "cuMemMap", &[0xa000, 4096, 0, 77], &[]);
    apply(&mut holdings, "cuMemRelease", &[77], &[]);
    assert_eq!(live(&holdings, "physical"), 4096, "released, but mapped");
    // The handle comes again.
    apply(&mut holdings, "cuMemCreate", &[0x10, 8192, 0x20, 0], &[77, device]);
    assert_eq!(live(&holdings, "physical"), 12288);
    apply(&mut holdings, "cuMemUnmap", &[0xa000, 4096], &[]);
    assert_eq!(live(&holdings, "physical"), 8192);
    apply(&mut holdings, "cuMemRelease", &[77], &[]);
    assert_eq!(live(&holdings, "physical"), 0);
}

/// As NCCL frees its buffers (ncclCuMemFree): the handle of the address, released twice.
#[test]
fn a_handle_that_was_retained_is_released_twice() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemCreate", &[0x10, 4096, 0x20, 0], &[77, 1]);
    apply(&mut holdings, "cuMemMap", &[0xa000, 4096, 0, 77], &[]);
    apply(&mut holdings, "cuMemRetainAllocationHandle", &[0x10, 0xa000], &[77]);
    apply(&mut holdings, "cuMemRelease", &[77], &[]);
    apply(&mut holdings, "cuMemUnmap", &[0xa000, 4096], &[]);
    assert_eq!(live(&holdings, "physical"), 4096, "unmapped, but not released");
    apply(&mut holdings, "cuMemRelease", &[77], &[]);
    assert_eq!((live(&holdings, "physical"), holdings.unknown_frees), (0, 0));
    // Released once more than it was retained and created.
    apply(&mut holdings, "cuMemRelease", &[77], &[]);
    assert_eq!(holdings.unknown_frees, 1);
}

#[test]
fn one_unmap_takes_neighbours_away() {
    let mut holdings = Holdings::default();
    for (handle, at) in [(1, 0x1000), (2, 0x2000), (3, 0x9000)] {
        apply(&mut holdings, "cuMemCreate", &[0x10, 0x1000, 0x20, 0], &[handle, 1]);
        apply(&mut holdings, "cuMemMap", &[at, 0x1000, 0, handle], &[]);
        apply(&mut holdings, "cuMemRelease", &[handle], &[]);
    }
    apply(&mut holdings, "cuMemUnmap", &[0x1000, 0x2000], &[]);
    assert_eq!(live(&holdings, "physical"), 0x1000);
}

#[test]
fn physical_memory_of_the_host_is_of_another_kind() {
    let mut holdings = Holdings::default();
    let host = 2;
    apply(&mut holdings, "cuMemCreate", &[0x10, 4096, 0x20, 0], &[77, host]);
    assert_eq!((live(&holdings, "physical-host"), live(&holdings, "device-all")), (4096, 0));
}

#[test]
fn the_end_of_the_last_context_frees_all() {
    let mut holdings = Holdings::default();
    holdings.process_began(7);
    apply(&mut holdings, "cuDevicePrimaryCtxRetain", &[0x10, 0], &[0xc0]);
    apply(&mut holdings, "cuDevicePrimaryCtxRetain", &[0x10, 0], &[0xc0]);
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuDevicePrimaryCtxRelease_v2", &[0], &[]);
    assert_eq!(live(&holdings, "device"), 100, "retained once more");
    apply(&mut holdings, "cuDevicePrimaryCtxRelease_v2", &[0], &[]);
    assert_eq!(live(&holdings, "device"), 0);
    let row = &holdings.rows(0)[0];
    assert_eq!((row.frees, row.implicit_frees, row.bytes_freed), (0, 1, 100));
}

#[test]
fn the_end_of_one_of_two_contexts_is_ambiguous() {
    let mut holdings = Holdings::default();
    holdings.process_began(7);
    apply(&mut holdings, "cuCtxCreate_v2", &[0x10, 0, 0], &[0xc0]);
    apply(&mut holdings, "cuCtxCreate_v2", &[0x10, 0, 0], &[0xc1]);
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuCtxDestroy_v2", &[0xc0], &[]);
    assert_eq!((live(&holdings, "device"), holdings.ambiguous_contexts), (100, 1));
    apply(&mut holdings, "cuCtxDestroy_v2", &[0xc1], &[]);
    assert_eq!(live(&holdings, "device"), 0);
}

#[test]
fn the_end_of_a_process_frees_what_is_its_own() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    holdings.apply(&call(8, "cuMemAlloc_v2", &[0x10, 5], &[0x1000], 0), None, None);
    holdings.process_ended(7, 9);
    assert_eq!(live(&holdings, "device"), 5);
    let own = holdings.totals().into_iter().find(|t| t.pid == Some(8) && t.kind == "device-all").unwrap();
    assert_eq!(own.live, 5);
}

#[test]
fn instants_keep_what_was_held_then() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemHostAlloc", &[0x10, 64, 0], &[0x1000]);
    holdings.mark(&[0]);
    apply(&mut holdings, "cuMemFreeHost", &[0x1000], &[]);
    holdings.mark(&[1]);
    assert_eq!(holdings.rows(3)[0].live, [Some(64), Some(0), None]);
}

#[test]
fn pinned_memory_is_kept_by_what_it_lies_in() {
    let mut holdings = Holdings::default();
    let pinned = call(7, "cuMemAllocHost_v2", &[0x10, 64], &[0x1000], 0);
    holdings.apply(&pinned, None, Some("shmem"));
    let registered = call(7, "cuMemHostRegister_v2", &[0x5000, 32, 0], &[], 0);
    holdings.apply(&registered, None, Some("anon"));
    let now = holdings.now();
    assert_eq!((now.pinned["shmem"], now.pinned["anon"]), (64, 32));
}

#[test]
fn contexts_and_modules_are_events() {
    let mut holdings = Holdings::default();
    let Effect::Event(event) = apply(&mut holdings, "cuModuleLoadData", &[0x10, 0x20], &[0x30]) else {
        panic!("no event")
    };
    assert_eq!((event.event.as_str(), event.object), ("module-load", Some(0x30)));
}

#[test]
fn a_free_that_returns_late_leaves_the_successor_at_its_address() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    // Another thread gets the address while the free is still on its way back.
    let mut successor = call(7, "cuMemAlloc_v2", &[0x10, 60], &[0x1000], 0);
    (successor.begin_ns, successor.end_ns) = (5, 6);
    holdings.apply(&successor, None, None);
    let mut free = call(7, "cuMemFree_v2", &[0x1000], &[], 0);
    (free.begin_ns, free.end_ns) = (4, 7);
    holdings.apply(&free, None, None);
    assert_eq!(live(&holdings, "device"), 60);
}

#[test]
fn contexts_of_a_process_that_was_there_before_are_ambiguous() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuCtxCreate_v2", &[0x10, 0, 0], &[0xc0]);
    apply(&mut holdings, "cuCtxDestroy_v2", &[0xc0], &[]);
    assert_eq!((live(&holdings, "device"), holdings.ambiguous_contexts), (100, 1));
}

#[test]
fn physical_memory_outlives_the_context() {
    let mut holdings = Holdings::default();
    holdings.process_began(7);
    apply(&mut holdings, "cuDevicePrimaryCtxRetain", &[0x10, 0], &[0xc0]);
    apply(&mut holdings, "cuMemCreate", &[0x10, 4096, 0x20, 0], &[77, 1]);
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 100], &[0x1000]);
    apply(&mut holdings, "cuDevicePrimaryCtxReset_v2", &[0], &[]);
    assert_eq!((live(&holdings, "device"), live(&holdings, "physical")), (0, 4096));
    holdings.process_ended(7, 9);
    assert_eq!(live(&holdings, "physical"), 0);
}

const CONTEXTS: [u64; 2] = [0xc0, 0xc1];

fn gpu(index: u32) -> Gpu {
    let uuid = format!("GPU-0000000{index}-0000-0000-0000-000000000000");
    let pci_bus_id = Some(format!("00000000:0{index}:00.0"));
    Gpu { index, uuid: Some(uuid), pci_bus_id, ..Gpu::default() }
}

/// A process whose devices 0 and 1 are the GPUs 1 and 0, with a context on each.
fn two_gpus() -> Holdings {
    let mut holdings = Holdings::default();
    holdings.know_gpus(&[gpu(0), gpu(1)]);
    for (device, context) in (0..).zip(CONTEXTS) {
        apply(&mut holdings, "cuDevicePrimaryCtxRetain", &[0x10, device], &[context]);
    }
    holdings
}

/// The driver names the GPU behind a number.
fn named(holdings: &mut Holdings, device: u64, gpu: u8) {
    apply(
        holdings,
        "cuDeviceGetUuid_v2",
        &[0x10, device],
        &[u64::from_ne_bytes([0, 0, 0, gpu, 0, 0, 0, 0]), 0],
    );
}

fn within(holdings: &mut Holdings, context: u64, symbol: &str, args: &[u64], outs: &[u64]) -> Effect {
    let call = Call { context: Some(context), ..call(7, symbol, args, outs, 0) };
    holdings.apply(&call, None, None)
}

fn of_gpu(holdings: &Holdings, device: Option<u32>) -> Option<(u64, u64, u64)> {
    let all = holdings.by_gpu().into_iter();
    let mut found =
        all.filter(|t| t.device == device && t.total.pid.is_none() && t.total.kind == "device-all");
    found.next().map(|t| (t.total.live, t.total.peak, t.total.allocs))
}

#[test]
fn memory_is_on_the_gpu_of_its_context_by_the_name_that_the_driver_gives_it() {
    let mut holdings = two_gpus();
    named(&mut holdings, 0, 1);
    named(&mut holdings, 1, 0);
    within(&mut holdings, CONTEXTS[0], "cuMemAlloc_v2", &[0x10, 3], &[0x1000]);
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 50], &[0x2000]);
    assert_eq!(holdings.device_of(7), ByGpu { on: BTreeMap::from([(1, 3), (0, 50)]), unknown: 0 });
    within(&mut holdings, CONTEXTS[0], "cuMemFree_v2", &[0x2000], &[]);
    assert_eq!((of_gpu(&holdings, Some(0)), of_gpu(&holdings, Some(1))), (Some((0, 50, 1)), Some((3, 3, 1))));
    assert_eq!(of_gpu(&holdings, None), None);
    let devices: Vec<_> = holdings.rows(0).iter().map(|row| row.device).collect();
    assert_eq!(devices, [Some(1), Some(0)]);
}

#[test]
fn what_no_call_says_the_gpu_of_stays_unknown() {
    let mut holdings = two_gpus();
    named(&mut holdings, 0, 1);
    // No current context was seen, and one that was made before the trace.
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 3], &[0x1000]);
    within(&mut holdings, 0x99, "cuMemAlloc_v2", &[0x10, 4], &[0x2000]);
    // A device whose name was not given, and a stream and a pool that were made before.
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 5], &[0x3000]);
    within(&mut holdings, CONTEXTS[0], "cuMemAllocAsync", &[0x10, 6, 0x77], &[0x4000]);
    within(&mut holdings, CONTEXTS[0], "cuMemAllocFromPoolAsync", &[0x10, 7, 0x78, 0], &[0x5000]);
    assert_eq!(holdings.device_of(7), ByGpu { on: BTreeMap::new(), unknown: 25 });
    assert_eq!((of_gpu(&holdings, None), of_gpu(&holdings, Some(1))), (Some((25, 25, 5)), None));
    // Where NVML lists one GPU, no other can be meant.
    let mut holdings = Holdings::default();
    holdings.know_gpus(&[gpu(0)]);
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 3], &[0x1000]);
    assert_eq!(of_gpu(&holdings, Some(0)), Some((3, 3, 1)));
}

#[test]
fn streams_pools_and_locations_have_a_device_whatever_context_is_current() {
    let mut holdings = two_gpus();
    named(&mut holdings, 0, 0);
    named(&mut holdings, 1, 1);
    let [first, second] = CONTEXTS;
    within(&mut holdings, second, "cuStreamCreateWithPriority", &[0x10, 0, 0], &[0x77]);
    within(&mut holdings, first, "cuMemAllocAsync", &[0x10, 6, 0x77], &[0x4000]);
    within(&mut holdings, first, "cuMemAllocAsync_ptsz", &[0x10, 60, 2], &[0x4100]);
    let device_1 = 1 << 32 | 1;
    within(&mut holdings, first, "cuMemPoolCreate", &[0x10, 0x18], &[0x88, device_1]);
    within(&mut holdings, first, "cuMemAllocFromPoolAsync", &[0x10, 700, 0x88, 0], &[0x5000]);
    within(&mut holdings, second, "cuDeviceGetDefaultMemPool", &[0x10, 0], &[0x89]);
    within(&mut holdings, second, "cuMemAllocFromPoolAsync", &[0x10, 8000, 0x89, 0], &[0x6000]);
    within(&mut holdings, first, "cuMemCreate", &[0x10, 90_000, 0x20, 0], &[0x1, device_1]);
    assert_eq!(holdings.device_of(7), ByGpu { on: BTreeMap::from([(0, 8060), (1, 90_706)]), unknown: 0 });
    // A handle of a stream that is gone may come again in a way that is not watched.
    within(&mut holdings, second, "cuStreamDestroy_v2", &[0x77], &[]);
    within(&mut holdings, first, "cuMemAllocAsync", &[0x10, 1, 0x77], &[0x7000]);
    assert_eq!(holdings.device_of(7).unknown, 1);
}

#[test]
fn what_was_allocated_before_its_gpu_got_a_name_moves_there() {
    let mut holdings = two_gpus();
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 5], &[0x1000]);
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 7], &[0x2000]);
    within(&mut holdings, CONTEXTS[1], "cuMemFree_v2", &[0x1000], &[]);
    assert_eq!(of_gpu(&holdings, None), Some((7, 12, 2)));
    let text = *b"0000:01:00.0\0\0\0\0";
    let [left, right] = [&text[..8], &text[8..]].map(|half| u64::from_ne_bytes(half.try_into().unwrap()));
    apply(&mut holdings, "cuDeviceGetPCIBusId", &[0x10, 13, 1], &[left, right]);
    assert_eq!((of_gpu(&holdings, None), of_gpu(&holdings, Some(1))), (None, Some((7, 12, 2))));
    within(&mut holdings, CONTEXTS[1], "cuMemFree_v2", &[0x2000], &[]);
    assert_eq!(holdings.device_of(7).all(), 0);
    assert!(holdings.rows(0).iter().all(|row| row.device == Some(1)));
    // The next program in the process counts its devices anew.
    holdings.process_ended(7, 9);
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 9], &[0x1000]);
    assert_eq!(holdings.device_of(7).unknown, 9);
}

#[test]
fn an_instance_of_a_gpu_is_on_that_gpu() {
    let mut holdings = Holdings::default();
    let instances = vec!["MIG-00000009-0000-0000-0000-000000000000".to_owned()];
    holdings.know_gpus(&[gpu(0), Gpu { instances, ..gpu(1) }]);
    apply(&mut holdings, "cuCtxCreate_v4", &[0x10, 0, 0, 0], &[0xc0]);
    named(&mut holdings, 0, 9);
    within(&mut holdings, 0xc0, "cuMemAlloc_v2", &[0x10, 3], &[0x1000]);
    assert_eq!(of_gpu(&holdings, Some(1)), Some((3, 3, 1)));
}

#[test]
fn the_end_of_one_context_of_several_frees_what_was_allocated_in_it() {
    let mut holdings = two_gpus();
    holdings.process_began(7);
    within(&mut holdings, CONTEXTS[0], "cuMemAlloc_v2", &[0x10, 3], &[0x1000]);
    within(&mut holdings, CONTEXTS[1], "cuMemAlloc_v2", &[0x10, 50], &[0x2000]);
    apply(&mut holdings, "cuDevicePrimaryCtxReset_v2", &[0], &[]);
    assert_eq!((live(&holdings, "device"), holdings.ambiguous_contexts), (50, 0));
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 600], &[0x3000]);
    apply(&mut holdings, "cuDevicePrimaryCtxRelease_v2", &[1], &[]);
    assert_eq!(live(&holdings, "device"), 0, "the last one frees all");
}

#[test]
fn allocations_of_one_caller_are_listed_one_by_one() {
    let mut holdings = Holdings::default();
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 1500], &[0x1000]);
    apply(&mut holdings, "cuMemAlloc_v2", &[0x10, 256], &[0x2000]);
    apply(&mut holdings, "cuMemAddressReserve", &[0x10, 9000, 0, 0, 0], &[0x8000]);
    apply(&mut holdings, "cuMemFree_v2", &[0x2000], &[]);
    let row = |row: CudaAllocation| (row.pid, row.kind, row.bytes, row.allocated_ns, row.freed_ns);
    let listed = |holdings: &Holdings| holdings.largest().into_iter().map(row).collect::<Vec<_>>();
    let small = (7, "device".to_owned(), 256, 1, Some(1));
    assert_eq!(listed(&holdings), [(7, "device".to_owned(), 1500, 1, None), small.clone()]);
    holdings.process_ended(7, 9);
    assert_eq!(listed(&holdings), [(7, "device".to_owned(), 1500, 1, Some(9)), small]);
}
