//! The functions as a program calls them. What they do to a process is tested with the workloads.

use std::collections::BTreeSet;
use std::ptr::null_mut;

use crate::abi::{Error, Out};
use crate::lookup::{find, functions};
use crate::{context, device, memory, stream, vmm};

/// Initialises, and makes a context current in this thread: tests run side by side.
fn context() {
    let mut handle = null_mut();
    // SAFETY: the one pointer is good for a handle.
    unsafe {
        assert_eq!(device::cuInit(0), 0);
        assert_eq!(context::cuCtxCreate_v2(Out::to(&mut handle), 0, 0), 0);
    }
    assert!(!handle.is_null());
}

#[test]
fn every_function_has_a_place_and_a_name_of_its_own() {
    let all: Vec<_> = functions().collect();
    let names: BTreeSet<_> = all.iter().map(|function| function.name).collect();
    let addresses: BTreeSet<_> = all.iter().map(|function| function.address.addr()).collect();
    assert_eq!((names.len(), addresses.len()), (all.len(), all.len()));
}

#[test]
fn versions_are_found_by_name() {
    let name = |symbol: &str, version, per_thread| {
        find(symbol.as_bytes(), version, per_thread).map(|function| function.name)
    };
    assert_eq!(name("cuMemAlloc", 12_000, false), Some("cuMemAlloc_v2"));
    assert_eq!(name("cuMemAllocAsync", 12_000, false), Some("cuMemAllocAsync"));
    assert_eq!(name("cuMemAllocAsync", 12_000, true), Some("cuMemAllocAsync_ptsz"));
    assert_eq!(name("cuCtxCreate", 12_000, false), Some("cuCtxCreate_v2"));
    assert_eq!(name("cuCtxCreate", 13_000, false), Some("cuCtxCreate_v4"));
    assert_eq!(name("cuArrayCreate", 13_000, false), None);
}

#[test]
fn wrong_pointers_are_refused() {
    context();
    let mut address = 0;
    // SAFETY: every pointer is good for what is written to it; the others must not be followed.
    unsafe {
        assert_eq!(memory::cuMemAlloc_v2(Out::to(&mut address), 100), 0);
        assert_eq!(memory::cuMemFree_v2(address + 4), Error::INVALID_VALUE.0);
        assert_eq!(crate::host::cuMemFreeHost(null_mut()), Error::INVALID_VALUE.0);
        assert_eq!(crate::pool::cuMemFreeAsync(address + 4, null_mut()), Error::INVALID_VALUE.0);
        assert_eq!(crate::copy::cuMemsetD8_v2(address, 0, 1 << 20), Error::INVALID_VALUE.0);
        assert_eq!(memory::cuMemFree_v2(address), 0);
        assert_eq!(memory::cuMemFree_v2(address), Error::INVALID_VALUE.0);
        assert_eq!(stream::cuStreamSynchronize(std::ptr::without_provenance_mut(7)), Error::INVALID_HANDLE.0);
    }
}

#[test]
fn too_much_is_refused() {
    context();
    let mut address = 0;
    for bytes in [1 << 50, usize::MAX] {
        // SAFETY: the pointer is good for an address.
        let result = unsafe { memory::cuMemAlloc_v2(Out::to(&mut address), bytes) };
        assert_eq!((result, address), (Error::OUT_OF_MEMORY.0, 0));
    }
}

#[test]
fn mapped_memory_keeps_what_is_written() {
    context();
    let size = 2 << 20;
    let (mut address, mut handle, properties) = (0, 0, [0_u64; 8]);
    let any = properties.as_ptr();
    // SAFETY: every pointer is good for what is written to it; properties are only compared with null.
    unsafe {
        assert_eq!(vmm::cuMemAddressReserve(Out::to(&mut address), 2 * size, 0, 0, 0), 0);
        assert_eq!(vmm::cuMemCreate(Out::to(&mut handle), size, any.cast(), 0), 0);
        assert_eq!(vmm::cuMemMap(address, 2 * size, 0, handle, 0), Error::INVALID_VALUE.0);
        for place in [address, address + size as u64] {
            assert_eq!(vmm::cuMemMap(place, size, 0, handle, 0), 0);
            assert_eq!(vmm::cuMemSetAccess(place, size, any.cast(), 1), 0);
        }
        assert_eq!(crate::copy::cuMemsetD32_v2(address, 77, 10), 0);
        let mut read = 0_u32;
        let to = (&raw mut read).cast();
        assert_eq!(crate::copy::cuMemcpyDtoH_v2(to, address + size as u64 + 36, 4), 0);
        assert_eq!(read, 77, "both places show the same memory");
        assert_eq!(vmm::cuMemRelease(handle), 0);
        assert_eq!(vmm::cuMemAddressFree(address, 2 * size), Error::INVALID_VALUE.0, "still mapped");
        for place in [address, address + size as u64] {
            assert_eq!(vmm::cuMemUnmap(place, size), 0);
        }
        assert_eq!(vmm::cuMemAddressFree(address, 2 * size), 0);
    }
}
