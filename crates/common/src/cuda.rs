//! The functions of NVIDIA's user-space libraries that say who takes memory, and what is left of it: one row each.
//!
//! The kernel side is the same for all: at entry it keeps the arguments, at return it reads what the row says
//! lies behind pointers and sends both. What they mean is written here and worked out in user space.
//!
//! Prototypes are those of cuda.h (CUDA 13) and nvml.h; arguments are counted from 0.

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Memory of the device: system memory where CPU and GPU share it.
    Device,
    /// Memory of the device allocated in the order of a stream, from a pool.
    Async,
    /// Physical memory of the virtual memory management calls, until released and mapped nowhere.
    Physical,
    /// The same, in host memory.
    PhysicalHost,
    /// Memory that moves between host and device.
    Managed,
    /// Host memory the driver allocates and pins.
    Pinned,
    /// Host memory of the program that the driver pins.
    Registered,
    /// Memory that somebody else allocated: another process or another API.
    Imported,
    /// Addresses without memory behind them.
    Reserved,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Device,
        Self::Async,
        Self::Physical,
        Self::PhysicalHost,
        Self::Managed,
        Self::Pinned,
        Self::Registered,
        Self::Imported,
        Self::Reserved,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Async => "async",
            Self::Physical => "physical",
            Self::PhysicalHost => "physical-host",
            Self::Managed => "managed",
            Self::Pinned => "pinned",
            Self::Registered => "registered",
            Self::Imported => "imported",
            Self::Reserved => "reserved",
        }
    }

    /// Goes with its context: the others are the process's.
    pub const fn is_of_context(self) -> bool {
        matches!(self, Self::Device | Self::Async | Self::Managed | Self::Pinned | Self::Registered)
    }

    /// Memory of the host that the driver pins.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Pinned | Self::Registered)
    }

    /// Takes memory of the device: what a discrete GPU's framebuffer holds.
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device | Self::Async | Self::Physical)
    }
}

/// What all kinds of device memory are called together.
pub const DEVICE_ALL: &str = "device-all";

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Alloc(Kind),
    /// Frees what was allocated as one of these.
    Free(&'static [Kind]),
    /// Physical memory gets an address; it lives on until it is unmapped, even if released.
    Map,
    Unmap,
    ContextCreate,
    ContextDestroy,
    PrimaryRetain,
    PrimaryRelease,
    PrimaryReset,
    ModuleLoad,
    ModuleUnload,
    PoolCreate,
    PoolTrim,
    PoolDestroy,
    /// Asks how much memory there is.
    Query,
}

impl Op {
    /// What an event of its own is called; `None` for those that only count.
    pub const fn event(self) -> Option<&'static str> {
        match self {
            Self::Alloc(_) | Self::Free(_) | Self::Map | Self::Unmap | Self::Query => None,
            Self::ContextCreate => Some("context-create"),
            Self::ContextDestroy => Some("context-destroy"),
            Self::PrimaryRetain => Some("primary-context-retain"),
            Self::PrimaryRelease => Some("primary-context-release"),
            Self::PrimaryReset => Some("primary-context-reset"),
            Self::ModuleLoad => Some("module-load"),
            Self::ModuleUnload => Some("module-unload"),
            Self::PoolCreate => Some("pool-create"),
            Self::PoolTrim => Some("pool-trim"),
            Self::PoolDestroy => Some("pool-destroy"),
        }
    }
}

/// Where a figure of a call is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    None,
    Arg(u8),
    /// What was read for the row's `outs`, by index there.
    Out(u8),
    /// Product of an `outs` value and an argument.
    OutTimesArg(u8, u8),
}

/// Eight bytes to read at return: what the argument points at, so many bytes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    pub arg: u8,
    pub offset: u8,
}

const NO_OUT: Out = Out { arg: u8::MAX, offset: 0 };

const fn out(arg: u8) -> Out {
    Out { arg, offset: 0 }
}

const fn out_at(arg: u8, offset: u8) -> Out {
    Out { arg, offset }
}

impl Out {
    pub const fn is_some(self) -> bool {
        self.arg != u8::MAX
    }
}

/// Values read behind pointers at most.
pub const OUTS: usize = 3;
/// Arguments kept of a call.
pub const ARGS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Library {
    /// libcuda.so.1: the driver API, where the runtime API and the frameworks arrive too.
    Cuda,
    /// libnvidia-ml.so.1
    Nvml,
}

impl Library {
    pub const ALL: [Self; 2] = [Self::Cuda, Self::Nvml];

    /// How the library's file names begin. The simulated driver's says what it is and has the same functions.
    pub const fn file_names(self) -> &'static [&'static str] {
        match self {
            Self::Cuda => &["libcuda.so", "libspark_trace_simulated_cuda.so"],
            Self::Nvml => &["libnvidia-ml.so"],
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "libcuda",
            Self::Nvml => "libnvidia-ml",
        }
    }
}

/// One function of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    pub symbol: &'static str,
    pub library: Library,
    pub op: Op,
    pub size: Value,
    /// Pointer or handle that is allocated or freed; for `Map` the address.
    pub object: Value,
    /// `Map`: the handle that is mapped. Otherwise the flags, where there are some.
    pub other: Value,
    pub outs: [Out; OUTS],
    /// Names of the `outs` of a query, bytes each.
    pub figures: &'static [&'static str],
}

impl Function {
    const fn new(symbol: &'static str, op: Op) -> Self {
        Self {
            symbol,
            library: Library::Cuda,
            op,
            size: Value::None,
            object: Value::None,
            other: Value::None,
            outs: [NO_OUT; OUTS],
            figures: &[],
        }
    }

    /// The user stack is worth its price: not for frees, which are found by what they free.
    pub const fn wants_stack(&self) -> bool {
        !matches!(self.op, Op::Free(_) | Op::Map | Op::Unmap | Op::ModuleUnload)
    }
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
    alloc("cuMemAllocAsync", Kind::Async, 1),
    alloc("cuMemAllocAsync_ptsz", Kind::Async, 1),
    // CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
    alloc("cuMemAllocFromPoolAsync", Kind::Async, 1),
    alloc("cuMemAllocFromPoolAsync_ptsz", Kind::Async, 1),
    // CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
    free("cuMemFreeAsync", BY_ADDRESS),
    free("cuMemFreeAsync_ptsz", BY_ADDRESS),
    made("cuMemPoolCreate", Op::PoolCreate),
    // CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
    Function { size: Value::Arg(1), ..of("cuMemPoolTrimTo", Op::PoolTrim) },
    of("cuMemPoolDestroy", Op::PoolDestroy),
    // CUresult cuMemCreate(handle *, size_t size, const CUmemAllocationProp *prop, unsigned long long flags);
    // the second eight bytes of the properties are the location: its type and its number.
    Function { outs: [out(0), out_at(2, 8), NO_OUT], ..alloc("cuMemCreate", Kind::Physical, 1) },
    free("cuMemRelease", &[Kind::Physical, Kind::PhysicalHost, Kind::Imported]),
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
    made("cuCtxCreate_v2", Op::ContextCreate),
    made("cuCtxCreate_v3", Op::ContextCreate),
    made("cuCtxCreate_v4", Op::ContextCreate),
    of("cuCtxDestroy_v2", Op::ContextDestroy),
    // CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
    Function { other: Value::Arg(1), ..made("cuDevicePrimaryCtxRetain", Op::PrimaryRetain) },
    Function { other: Value::Arg(0), ..of("cuDevicePrimaryCtxRelease_v2", Op::PrimaryRelease) },
    Function { other: Value::Arg(0), ..of("cuDevicePrimaryCtxReset_v2", Op::PrimaryReset) },
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

impl Function {
    /// The tracer has something to look at when it happens: the state of memory at an answer, the mapping that host
    /// memory lies in. What is only counted can wait for the next tick, and the caller is spared the waking.
    pub const fn is_urgent(&self) -> bool {
        match self.op {
            Op::Alloc(kind) => kind.is_host(),
            Op::Free(_) | Op::Map | Op::Unmap => false,
            _ => true,
        }
    }
}

/// What a probe's cookie passes to the kernel side: which row, what to read, whether to take the stack.
pub const fn cookie(function: usize) -> u64 {
    let row = &FUNCTIONS[function];
    let mut cookie = function as u64 & 0xffff;
    let mut i = 0;
    while i < OUTS {
        let out = row.outs[i];
        let bits = if out.is_some() { (out.arg as u64 + 1) | (out.offset as u64) << 4 } else { 0 };
        cookie |= bits << (16 + 12 * i);
        i += 1;
    }
    cookie |= (row.wants_stack() as u64) << COOKIE_STACK;
    cookie |= (row.is_urgent() as u64) << COOKIE_URGENT;
    cookie | (matches!(row.op, Op::Query) as u64) << COOKIE_STATE
}

/// Bits of a cookie: take the user stack; take the state of memory; wake the tracer.
pub const COOKIE_STACK: u32 = 60;
pub const COOKIE_STATE: u32 = 61;
pub const COOKIE_URGENT: u32 = 62;

/// Row of a cookie.
pub const fn cookie_function(cookie: u64) -> u32 {
    cookie as u32 & 0xffff
}

/// What a cookie says of value `i` behind a pointer: argument (from 1, 0 for none) and offset.
pub const fn cookie_out(cookie: u64, i: usize) -> (u64, u64) {
    let bits = cookie >> (16 + 12 * i) & 0xfff;
    (bits & 0xf, bits >> 4)
}

const _: () = {
    let mut i = 0;
    while i < FUNCTIONS.len() {
        let mut j = 0;
        while j < OUTS {
            let out = FUNCTIONS[i].outs[j];
            assert!(!out.is_some() || (out.arg as usize) < ARGS, "no such argument is kept");
            let (arg, offset) = cookie_out(cookie(i), j);
            assert!(arg == if out.is_some() { out.arg as u64 + 1 } else { 0 }, "a cookie lost an argument");
            assert!(!out.is_some() || offset == out.offset as u64, "a cookie lost an offset");
            j += 1;
        }
        assert!(cookie_function(cookie(i)) as usize == i, "a cookie lost its row");
        i += 1;
    }
};
