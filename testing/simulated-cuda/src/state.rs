//! All that the driver remembers, behind one lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::abi::{CUdevice, Done, Error, Handle, Kernel};
use crate::blocks::Blocks;
use crate::mapping::{Mapping, Physical};
use crate::stand_in::{Taken, channels};

/// What a handle stands for.
#[derive(Debug)]
pub enum Object {
    Context(CUdevice),
    /// With the device of its context.
    Stream(CUdevice),
    Event(Option<Instant>),
    /// Names of its entry points.
    Module(Vec<String>),
    Function(Kernel),
    Pool(Pool),
}

#[derive(Debug, Default)]
pub struct Pool {
    pub device: CUdevice,
    /// Freed by the program, and kept until the next synchronisation.
    pub cached: Vec<Mapping>,
    /// What a synchronisation leaves in `cached`.
    pub release_threshold: u64,
}

#[derive(Default)]
pub struct State {
    pub initialized: bool,
    /// The GPUs that this process sees, by its numbers.
    pub devices: Vec<u32>,
    /// The primary context of each device, and how often it is retained.
    pub primary: BTreeMap<CUdevice, (usize, u32)>,
    pub default_pools: BTreeMap<CUdevice, usize>,
    pub objects: BTreeMap<usize, Object>,
    pub blocks: Blocks,
    /// Reserved addresses.
    pub reserved: Vec<Mapping>,
    pub physical: BTreeMap<u64, (Physical, CUdevice)>,
    /// What each context has of the driver for itself, by its number.
    pub channels: BTreeMap<usize, Vec<Taken>>,
    /// Bytes of each GPU as they were last written down.
    pub accounts: BTreeMap<u32, u64>,
    last: usize,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The calling thread's contexts, the current one last.
    static CONTEXTS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

pub fn lock_any() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state, for all functions but cuInit.
pub fn lock() -> Result<MutexGuard<'static, State>, Error> {
    let state = lock_any();
    if state.initialized { Ok(state) } else { Err(Error::NOT_INITIALIZED) }
}

pub fn check_initialized() -> Done {
    lock().map(drop)
}

pub fn check_device(device: CUdevice) -> Done {
    lock()?.gpu(device).map(|_| ())
}

/// Takes the place of the current context; 0 for none.
pub fn set_current(context: usize) {
    pop_current();
    if context != 0 {
        push_current(context);
    }
}

pub fn push_current(context: usize) {
    CONTEXTS.with_borrow_mut(|contexts| contexts.push(context));
}

pub fn pop_current() -> Option<usize> {
    CONTEXTS.with_borrow_mut(Vec::pop)
}

impl State {
    /// The GPU of this number.
    pub fn gpu(&self, device: CUdevice) -> Result<u32, Error> {
        let index = usize::try_from(device).map_err(|_| Error::INVALID_DEVICE)?;
        self.devices.get(index).copied().ok_or(Error::INVALID_DEVICE)
    }

    /// A new handle. Numbers are not used again, so that a stale one is always recognised.
    pub fn add(&mut self, object: Object) -> usize {
        // Looks like a pointer, and is none: the first page is never mapped.
        self.last += 16;
        self.objects.insert(self.last, object);
        self.last
    }

    /// A new context, with what it takes for itself.
    pub fn add_context(&mut self, device: CUdevice) -> Result<usize, Error> {
        let channels = channels()?;
        let number = self.add(Object::Context(device));
        if !channels.is_empty() {
            self.channels.insert(number, channels);
        }
        Ok(number)
    }

    pub fn object(&mut self, handle: Handle) -> Result<&mut Object, Error> {
        self.objects.get_mut(&handle.addr()).ok_or(Error::INVALID_HANDLE)
    }

    pub fn pool(&mut self, number: usize) -> Result<&mut Pool, Error> {
        match self.objects.get_mut(&number) {
            Some(Object::Pool(pool)) => Ok(pool),
            _ => Err(Error::INVALID_HANDLE),
        }
    }

    /// The calling thread's context, or 0 for none or one that has ended.
    pub fn current_or_none(&self) -> usize {
        let current = CONTEXTS.with_borrow(|contexts| contexts.last().copied()).unwrap_or(0);
        if matches!(self.objects.get(&current), Some(Object::Context(_))) { current } else { 0 }
    }

    /// The device of the calling thread's context.
    pub fn current_device(&self) -> Result<CUdevice, Error> {
        match self.objects.get(&self.current()?) {
            Some(Object::Context(device)) => Ok(*device),
            _ => Err(Error::INVALID_CONTEXT),
        }
    }

    /// The device of a stream.
    pub fn device_of_stream(&self, stream: Handle) -> Result<CUdevice, Error> {
        match self.objects.get(&stream.addr()) {
            Some(Object::Stream(device)) => Ok(*device),
            _ => self.current_device(),
        }
    }

    pub fn current(&self) -> Result<usize, Error> {
        match self.current_or_none() {
            0 => Err(Error::INVALID_CONTEXT),
            context => Ok(context),
        }
    }

    /// The null stream and the two constants for default streams, or one that was created.
    pub fn check_stream(&self, stream: Handle) -> Done {
        self.current()?;
        match stream.addr() {
            0..=2 => Ok(()),
            number if matches!(self.objects.get(&number), Some(Object::Stream(_))) => Ok(()),
            _ => Err(Error::INVALID_HANDLE),
        }
    }

    /// What work is waited for gives back: nothing is ever pending, but pools let go of what they keep.
    pub fn synchronize(&mut self) {
        for object in self.objects.values_mut() {
            if let Object::Pool(pool) = object {
                let keep = pool.release_threshold;
                pool.trim(keep);
            }
        }
        self.keep_accounts();
    }

    /// Ends a context with all that was allocated in it.
    pub fn end_context(&mut self, context: usize) {
        self.objects.remove(&context);
        self.channels.remove(&context);
        self.blocks.end_context(context);
        self.synchronize();
    }
}

impl Pool {
    /// Unmaps what is cached, the oldest first, until no more than `keep` bytes are left.
    pub fn trim(&mut self, keep: u64) {
        let mut cached: u64 = self.cached.iter().map(|mapping| mapping.len as u64).sum();
        self.cached.retain(|mapping| {
            let drop = cached > keep;
            if drop {
                cached -= mapping.len as u64;
            }
            !drop
        });
    }
}
