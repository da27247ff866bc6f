//! The functions, one row each. Prototypes are those of cuda.h (CUDA 13) and nvml.h.

use super::{Current, Function, Kind, Library, OUTS, Op, Out, Value, Where};

const NO_OUT: Out = Out::NONE;

const fn out(arg: u8) -> Out {
    Out { arg, offset: 0 }
}

const fn out_at(arg: u8, offset: u8) -> Out {
    Out { arg, offset }
}

const fn alloc(symbol: &'static str, kind: Kind, size: u8) -> Function {
    Function {
        size: Value::Arg(size),
        object: Value::Out(0),
        outs: [out(0), NO_OUT, NO_OUT],
        ..Function::new(symbol, Op::Alloc(kind))
    }
}

const fn alloc_flags(symbol: &'static str, kind: Kind, size: u8, flags: u8) -> Function {
    Function { other: Value::Arg(flags), ..alloc(symbol, kind, size) }
}

const fn free(symbol: &'static str, kinds: &'static [Kind]) -> Function {
    Function { object: Value::Arg(0), ..Function::new(symbol, Op::Free(kinds)) }
}

/// The handle that a function makes through its first argument.
const fn made(symbol: &'static str, op: Op) -> Function {
    Function { object: Value::Out(0), outs: [out(0), NO_OUT, NO_OUT], ..Function::new(symbol, op) }
}

const fn of(symbol: &'static str, op: Op) -> Function {
    Function { object: Value::Arg(0), ..Function::new(symbol, op) }
}

const fn query(
    symbol: &'static str,
    library: Library,
    outs: [Out; OUTS],
    figures: &'static [&'static str],
) -> Function {
    Function { library, outs, figures, ..Function::new(symbol, Op::Query) }
}

/// A context for the device in an argument.
const fn context(symbol: &'static str, device: u8) -> Function {
    Function { other: Value::Arg(device), ..made(symbol, Op::ContextCreate) }
}

/// An allocation in the order of a stream.
const fn alloc_async(symbol: &'static str, place: Where) -> Function {
    Function { place, ..alloc(symbol, Kind::Async, 1) }
}

/// What the driver calls a device, 16 bytes.
const fn name_of(symbol: &'static str, op: Op, device: u8) -> Function {
    Function { other: Value::Arg(device), outs: [out(0), out_at(0, 8), NO_OUT], ..Function::new(symbol, op) }
}

const fn pool_of(symbol: &'static str) -> Function {
    Function { other: Value::Arg(1), ..made(symbol, Op::PoolOf) }
}

const BY_ADDRESS: &[Kind] = &[Kind::Device, Kind::Managed, Kind::Async];

/// All functions. Those with the suffix `_ptsz` are the same for programs built to use a default stream per thread.
pub const FUNCTIONS: &[Function] = &[
    // CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
    alloc("cuMemAlloc_v2", Kind::Device, 1),
    // CUresult cuMemAllocPitch_v2(CUdeviceptr *, size_t *pPitch, size_t WidthInBytes, size_t Height, unsigned)
    Function {
        size: Value::OutTimesArg(1, 3),
        outs: [out(0), out(1), NO_OUT],
        ..alloc("cuMemAllocPitch_v2", Kind::Device, 2)
    },
    // CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
    alloc_flags("cuMemAllocManaged", Kind::Managed, 1, 2),
    // CUresult cuMemAllocHost_v2(void **pp, size_t bytesize)
    alloc("cuMemAllocHost_v2", Kind::Pinned, 1),
    // CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
    alloc_flags("cuMemHostAlloc", Kind::Pinned, 1, 2),
    // CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
    Function {
        object: Value::Arg(0),
        outs: [NO_OUT; OUTS],
        ..alloc_flags("cuMemHostRegister_v2", Kind::Registered, 1, 2)
    },
    free("cuMemHostUnregister", &[Kind::Registered]),
    free("cuMemFree_v2", BY_ADDRESS),
    free("cuMemFreeHost", &[Kind::Pinned]),
    // CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
    alloc_async("cuMemAllocAsync", Where::Stream(2)),
    alloc_async("cuMemAllocAsync_ptsz", Where::Stream(2)),
    // CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
    alloc_async("cuMemAllocFromPoolAsync", Where::Pool(2)),
    alloc_async("cuMemAllocFromPoolAsync_ptsz", Where::Pool(2)),
    // CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
    free("cuMemFreeAsync", BY_ADDRESS),
    free("cuMemFreeAsync_ptsz", BY_ADDRESS),
    // CUresult cuMemPoolCreate(CUmemoryPool *, const CUmemPoolProps *): the second eight bytes are the location.
    Function {
        outs: [out(0), out_at(1, 8), NO_OUT],
        place: Where::Location(1),
        ..made("cuMemPoolCreate", Op::PoolCreate)
    },
    // CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
    Function { size: Value::Arg(1), ..of("cuMemPoolTrimTo", Op::PoolTrim) },
    of("cuMemPoolDestroy", Op::PoolDestroy),
    // CUresult cuMemCreate(handle *, size_t size, const CUmemAllocationProp *prop, unsigned long long flags);
    // the second eight bytes of the properties are the location: its type and its number.
    Function {
        outs: [out(0), out_at(2, 8), NO_OUT],
        place: Where::Location(1),
        ..alloc("cuMemCreate", Kind::Physical, 1)
    },
    free("cuMemRelease", &[Kind::Physical, Kind::PhysicalHost, Kind::Imported]),
    // CUresult cuMemRetainAllocationHandle(handle *, void *addr): released once more than it was created
    made("cuMemRetainAllocationHandle", Op::HandleRetain),
    // CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, handle, unsigned long long flags)
    Function { size: Value::Arg(1), other: Value::Arg(3), ..of("cuMemMap", Op::Map) },
    // CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
    Function { size: Value::Arg(1), ..of("cuMemUnmap", Op::Unmap) },
    // CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr, flags)
    alloc("cuMemAddressReserve", Kind::Reserved, 1),
    free("cuMemAddressFree", &[Kind::Reserved]),
    // CUresult cuMemImportFromShareableHandle(handle *, void *osHandle, type): the size is the exporter's.
    Function { size: Value::None, ..alloc("cuMemImportFromShareableHandle", Kind::Imported, 0) },
    // CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle (64 bytes, by value), flags)
    Function { size: Value::None, ..alloc("cuIpcOpenMemHandle_v2", Kind::Imported, 0) },
    free("cuIpcCloseMemHandle", &[Kind::Imported]),
    // CUresult cuImportExternalMemory(CUexternalMemory *, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *): size at 24.
    Function {
        size: Value::Out(1),
        outs: [out(0), out_at(1, 24), NO_OUT],
        ..alloc("cuImportExternalMemory", Kind::Imported, 0)
    },
    free("cuDestroyExternalMemory", &[Kind::Imported]),
    // CUresult cuCtxCreate_v2(CUcontext *, unsigned int flags, CUdevice)
    context("cuCtxCreate_v2", 2),
    // CUresult cuCtxCreate_v3(CUcontext *, CUexecAffinityParam *, int numParams, unsigned int flags, CUdevice)
    context("cuCtxCreate_v3", 4),
    // CUresult cuCtxCreate_v4(CUcontext *, CUctxCreateParams *, unsigned int flags, CUdevice)
    context("cuCtxCreate_v4", 3),
    of("cuCtxDestroy_v2", Op::ContextDestroy),
    // CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
    Function { other: Value::Arg(1), ..made("cuDevicePrimaryCtxRetain", Op::PrimaryRetain) },
    Function { other: Value::Arg(0), ..of("cuDevicePrimaryCtxRelease_v2", Op::PrimaryRelease) },
    Function { other: Value::Arg(0), ..of("cuDevicePrimaryCtxReset_v2", Op::PrimaryReset) },
    // CUresult cuCtxSetCurrent(CUcontext), cuCtxPushCurrent_v2(CUcontext), cuCtxPopCurrent_v2(CUcontext *)
    of("cuCtxSetCurrent", Op::Current(Current::Set)),
    of("cuCtxPushCurrent_v2", Op::Current(Current::Push)),
    Function::new("cuCtxPopCurrent_v2", Op::Current(Current::Pop)),
    // CUresult cuDeviceGetUuid(CUuuid *, CUdevice); version 2 names the instance where a GPU is divided (MIG).
    name_of("cuDeviceGetUuid", Op::DeviceUuid, 1),
    name_of("cuDeviceGetUuid_v2", Op::DeviceUuid, 1),
    // CUresult cuDeviceGetPCIBusId(char *, int len, CUdevice)
    name_of("cuDeviceGetPCIBusId", Op::DevicePci, 2),
    // CUresult cuStreamCreate(CUstream *, unsigned int flags), cuStreamCreateWithPriority(CUstream *, flags, int)
    made("cuStreamCreate", Op::StreamCreate),
    made("cuStreamCreateWithPriority", Op::StreamCreate),
    of("cuStreamDestroy_v2", Op::StreamDestroy),
    // CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *, CUdevice), cuDeviceGetMemPool(CUmemoryPool *, CUdevice)
    pool_of("cuDeviceGetDefaultMemPool"),
    pool_of("cuDeviceGetMemPool"),
    made("cuModuleLoad", Op::ModuleLoad),
    made("cuModuleLoadData", Op::ModuleLoad),
    made("cuModuleLoadDataEx", Op::ModuleLoad),
    made("cuModuleLoadFatBinary", Op::ModuleLoad),
    made("cuLibraryLoadData", Op::ModuleLoad),
    made("cuLibraryLoadFromFile", Op::ModuleLoad),
    of("cuModuleUnload", Op::ModuleUnload),
    of("cuLibraryUnload", Op::ModuleUnload),
    // CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
    query("cuMemGetInfo_v2", Library::Cuda, [out(0), out(1), NO_OUT], &["free", "total"]),
    // CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
    query("cuDeviceTotalMem_v2", Library::Cuda, [out(0), NO_OUT, NO_OUT], &["total"]),
    // nvmlMemory_t: total, free, used
    query(
        "nvmlDeviceGetMemoryInfo",
        Library::Nvml,
        [out(1), out_at(1, 8), out_at(1, 16)],
        &["total", "free", "used"],
    ),
    // nvmlMemory_v2_t: version, total, reserved, free, used
    query(
        "nvmlDeviceGetMemoryInfo_v2",
        Library::Nvml,
        [out_at(1, 8), out_at(1, 24), out_at(1, 32)],
        &["total", "free", "used"],
    ),
    // nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(device, unsigned int *infoCount, infos *)
    query("nvmlDeviceGetComputeRunningProcesses_v3", Library::Nvml, [NO_OUT; OUTS], &[]),
];
