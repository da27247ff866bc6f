//! What crosses the C interface: results, handles, pointers to write to; and the macro that exports functions.

use std::ffi::{c_char, c_void};
use std::sync::atomic::AtomicU64;

/// `CUresult`, an enum of C and so as wide as an int.
pub type CUresult = u32;
pub type CUdevice = i32;
pub type CUdeviceptr = u64;
/// Contexts, streams, events, modules, functions and pools: pointers that only we look behind. Ours are numbers.
pub type Handle = *mut c_void;

/// An error, by its number in cuda.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub CUresult);

pub type Done = Result<(), Error>;

macro_rules! errors {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Error {
            $(pub const $name: Self = Self($number);)*
        }
        /// Number, name as in cuda.h, and a description; all of them with a NUL at the end.
        pub const ERRORS: &[(CUresult, &str, &str)] = &[
            (0, "CUDA_SUCCESS\0", "no error\0"),
            $(($number, concat!("CUDA_ERROR_", stringify!($name), "\0"), concat!($text, "\0")),)*
        ];
    };
}

errors! {
    INVALID_VALUE = 1, "invalid argument";
    OUT_OF_MEMORY = 2, "out of memory";
    NOT_INITIALIZED = 3, "initialization error: cuInit comes first";
    NO_DEVICE = 100, "the stand-in for NVIDIA's kernel modules is wanted, and its devices cannot be opened";
    INVALID_DEVICE = 101, "invalid device ordinal";
    INVALID_IMAGE = 200, "the module's image is not PTX text";
    INVALID_CONTEXT = 201, "invalid device context: none is current";
    INVALID_HANDLE = 400, "invalid resource handle";
    NOT_FOUND = 500, "named symbol not found";
    ILLEGAL_ADDRESS = 700, "a kernel would have accessed memory that is not allocated";
    HOST_MEMORY_ALREADY_REGISTERED = 712, "part or all of the memory is registered already";
    HOST_MEMORY_NOT_REGISTERED = 713, "the memory is not registered";
    NOT_SUPPORTED = 801, "not supported by the simulated driver";
}

/// A pointer through which we answer. Whoever calls a function of the driver vouches for it: null, or good for one
/// `T`. Only such callers make one, so that writing through it needs no further promise.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    pub fn put(&self, value: T) -> Done {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: not null, and so good for one `T`: see the type.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// For answers that the caller may not want.
    pub fn put_if_wanted(&self, value: T) {
        // A null pointer is how they say so.
        let _ = self.put(value);
    }

    #[cfg(test)]
    pub fn to(value: &mut T) -> Self {
        Self(value)
    }
}

/// A NUL-terminated string, or null, for which the caller vouches likewise.
#[repr(transparent)]
pub struct Text(pub *const c_char);

impl Text {
    pub fn bytes(&self) -> Result<&[u8], Error> {
        if self.0.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: not null, and so a string that ends: see the type.
        Ok(unsafe { std::ffi::CStr::from_ptr(self.0) }.to_bytes())
    }
}

/// The kernels that can be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// C = A B, of f32 by rows: (a, b, c, m, n, k), the first three u64, the others u32.
    Gemm,
}

impl Kernel {
    pub fn by_name(name: &[u8]) -> Option<Self> {
        match name {
            b"spark_trace_gemm" => Some(Self::Gemm),
            _ => None,
        }
    }
}

/// An exported function: for cuGetProcAddress, and for a count of how often it ran.
pub struct Function {
    pub name: &'static str,
    pub address: *const (),
    pub calls: &'static AtomicU64,
}

/// Exports functions under their names, and lists them as `FUNCTIONS`.
///
/// Each counts its calls. That is a truth to hold a tracer's hits against; and since no two functions count in the
/// same place, no two have the same code, which LLVM would merge under one address: a probe on one would then fire
/// for the other.
macro_rules! exported {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        enum Index { $($name),* }

        static CALLS: [std::sync::atomic::AtomicU64; [$(Index::$name as usize),*].len()] =
            [const { std::sync::atomic::AtomicU64::new(0) }; [$(Index::$name as usize),*].len()];

        pub const FUNCTIONS: &[crate::abi::Function] = &[$(crate::abi::Function {
            name: stringify!($name),
            address: $name as *const (),
            calls: &CALLS[Index::$name as usize],
        }),*];

        $(
            $(#[$meta])*
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> crate::abi::CUresult {
                CALLS[Index::$name as usize].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let run = move || -> crate::abi::Done { $body };
                match run() {
                    Ok(()) => 0,
                    Err(error) => error.0,
                }
            }
        )*
    };
}
pub(crate) use exported;
