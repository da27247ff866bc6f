//! The functions of NVIDIA's user-space libraries that say who takes memory, and what is left of it: one row each.
//!
//! The kernel side is the same for all: at entry it keeps the arguments, at return it reads what the row says
//! lies behind pointers and sends both. What they mean is written here and worked out in user space.
//!
//! Prototypes are those of cuda.h (CUDA 13) and nvml.h; arguments are counted from 0.

mod cookie;
mod table;

pub use cookie::{
    ANY_SIZE, COOKIE_SILENT, COOKIE_SIZE, COOKIE_STACK, COOKIE_STATE, COOKIE_URGENT, cookie, cookie_current,
    cookie_function, cookie_out, cookie_size,
};
pub use table::FUNCTIONS;

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

/// Column of a GPU's readings: bytes that the target's calls allocated on it and did not free.
pub const LIVE_ON_GPU: &str = "cuda.live";

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Alloc(Kind),
    /// Frees what was allocated as one of these.
    Free(&'static [Kind]),
    /// Physical memory gets an address; it lives on until it is unmapped, even if released.
    Map,
    Unmap,
    /// The handle of mapped physical memory has one more owner.
    HandleRetain,
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
    /// Changes the calling thread's current context. The kernel side keeps it; nothing is sent.
    Current(Current),
    /// The call names the GPU behind a device number.
    DeviceUuid,
    DevicePci,
    StreamCreate,
    StreamDestroy,
    /// The call names a pool of a device.
    PoolOf,
}

/// How a call changes the stack of contexts of its thread, whose top is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Current {
    /// The argument takes the place of the top.
    Set = 1,
    /// The argument.
    Push = 2,
    Pop = 3,
    /// What the first argument points at.
    Created = 4,
    /// The argument, if it is the top.
    Destroyed = 5,
}

/// Which device a call takes memory of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// That of the thread's current context.
    Current,
    /// That of the stream in this argument, or of the current context for a default stream.
    Stream(u8),
    /// That of the pool in this argument.
    Pool(u8),
    /// That in the upper half of what was read: `CUmemLocation` (cuda.h), a type and a number.
    Location(u8),
}

impl Op {
    /// What an event of its own is called; `None` for those that only count.
    pub const fn event(self) -> Option<&'static str> {
        match self {
            Self::Alloc(_)
            | Self::Free(_)
            | Self::Map
            | Self::Unmap
            | Self::HandleRetain
            | Self::Query
            | Self::Current(_)
            | Self::DeviceUuid
            | Self::DevicePci
            | Self::StreamCreate
            | Self::StreamDestroy
            | Self::PoolOf => None,
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

impl Out {
    const NONE: Self = Self { arg: u8::MAX, offset: 0 };

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
    /// The device whose memory it is, for kinds that take memory of one.
    pub place: Where,
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
            outs: [Out::NONE; OUTS],
            place: Where::Current,
            figures: &[],
        }
    }

    /// Which calls the frames of Python are worth walking for: large allocations, and readings of how much memory there is.
    const fn frames_by(&self) -> u64 {
        match (self.op, self.size) {
            (Op::Alloc(_), Value::Arg(index)) => index as u64 + 1,
            (Op::Alloc(_) | Op::Query, _) => ANY_SIZE,
            _ => 0,
        }
    }

    /// The user stack is worth its price: not for frees, which are found by what they free.
    pub const fn wants_stack(&self) -> bool {
        !matches!(self.op, Op::Free(_) | Op::Map | Op::Unmap | Op::HandleRetain | Op::ModuleUnload)
            && !self.names_a_device()
    }

    /// It takes no memory, and says to which device something belongs.
    const fn names_a_device(&self) -> bool {
        matches!(
            self.op,
            Op::Current(_)
                | Op::DeviceUuid
                | Op::DevicePci
                | Op::StreamCreate
                | Op::StreamDestroy
                | Op::PoolOf
        )
    }

    /// How it changes the thread's current context.
    const fn current(&self) -> u64 {
        match self.op {
            Op::Current(change) => change as u64,
            Op::ContextCreate => Current::Created as u64,
            Op::ContextDestroy => Current::Destroyed as u64,
            _ => 0,
        }
    }
}

impl Function {
    /// The tracer has something to look at when it happens: the state of memory at an answer, the mapping that host
    /// memory lies in. What is only counted can wait for the next tick, and the caller is spared the waking.
    pub const fn is_urgent(&self) -> bool {
        match self.op {
            Op::Alloc(kind) => kind.is_host(),
            Op::Free(_) | Op::Map | Op::Unmap | Op::HandleRetain => false,
            _ => !self.names_a_device(),
        }
    }
}
