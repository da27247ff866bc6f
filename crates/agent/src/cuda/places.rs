//! Which GPU a call is for.
//!
//! Calls that take memory name no GPU: they take that of the thread's current context, of a stream, of a pool, or of a
//! device by its number. Contexts, streams and pools are followed from the call that made them. Numbers of devices are
//! each process's own (CUDA_VISIBLE_DEVICES leaves some out and orders them anew), and become a GPU by the UUID or the PCI
//! address that the driver gives the process. What was made before the trace, or in a way that is not watched, has no
//! known device.

use std::collections::HashMap;

use spark_trace_common::cuda::{Kind, Op, Value, Where};
use spark_trace_recording::Gpu;

use crate::decode::Call;

/// `CUmemLocationType` (cuda.h): anything but the device (1) is host memory.
const LOCATION_DEVICE: u32 = 1;
/// The null stream and the two constants for default streams (cuda.h, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD).
const DEFAULT_STREAMS: std::ops::RangeInclusive<u64> = 0..=2;
/// Contexts, streams, pools and devices kept of all processes together. What there is no room for has no known device.
const MOST: usize = 1 << 16;

/// Where device memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// NVML's index.
    Gpu(u32),
    /// The number of a device of the process, of which the GPU is not known yet.
    Ordinal(u32),
    Unknown,
}

impl Place {
    pub(super) const fn gpu(self) -> Option<u32> {
        match self {
            Self::Gpu(index) => Some(index),
            Self::Ordinal(_) | Self::Unknown => None,
        }
    }
}

/// Something with a handle that belongs to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Context(u64),
    Stream(u64),
    Pool(u64),
}

#[derive(Debug, Default)]
pub(super) struct Places {
    names: Vec<Name>,
    /// All GPUs that NVML lists.
    count: usize,
    owners: HashMap<(u32, Owner), u32>,
    gpus: HashMap<(u32, u32), u32>,
}

/// What a GPU, or an instance of one, is called.
#[derive(Debug)]
struct Name {
    index: u32,
    uuid: Option<[u8; 16]>,
    pci: Option<Pci>,
}

/// Domain, bus and device.
type Pci = (u32, u32, u32);

impl Places {
    /// The GPUs that NVML lists.
    pub(super) fn know(&mut self, gpus: &[Gpu]) {
        self.count = gpus.len();
        self.names = gpus
            .iter()
            .flat_map(|gpu| {
                let whole = Name {
                    index: gpu.index,
                    uuid: gpu.uuid.as_deref().and_then(uuid),
                    pci: gpu.pci_bus_id.as_deref().and_then(pci),
                };
                let parts = gpu.instances.iter().map(|instance| uuid(instance));
                let parts = parts.map(|uuid| Name { index: gpu.index, uuid, pci: None });
                std::iter::once(whole).chain(parts)
            })
            .collect();
    }

    /// Takes in what a call that succeeded says of a device. Gives the number of a device whose GPU is known from now on.
    pub(super) fn learn(&mut self, call: &Call) -> Option<(u32, u32)> {
        let function = call.function;
        let (object, other) = (call.value(function.object), call.value(function.other));
        let numbered = other.map(|device| device as u32);
        match function.op {
            Op::ContextCreate | Op::PrimaryRetain => self.own(call.pid, Owner::Context(object?), numbered),
            Op::StreamCreate => {
                let device = self.current(call);
                self.own(call.pid, Owner::Stream(object?), device);
            }
            Op::StreamDestroy => self.disown(call.pid, Owner::Stream(object?)),
            Op::PoolCreate => self.own(call.pid, Owner::Pool(object?), located(call)),
            Op::PoolOf => self.own(call.pid, Owner::Pool(object?), numbered),
            Op::PoolDestroy => self.disown(call.pid, Owner::Pool(object?)),
            Op::ContextDestroy => self.disown(call.pid, Owner::Context(object?)),
            Op::DeviceUuid | Op::DevicePci => return self.name(call, numbered?),
            _ => {}
        }
        None
    }

    fn name(&mut self, call: &Call, device: u32) -> Option<(u32, u32)> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&call.outs[0]?.to_ne_bytes());
        bytes[8..].copy_from_slice(&call.outs[1]?.to_ne_bytes());
        let is_it = |name: &&Name| match call.function.op {
            Op::DeviceUuid => name.uuid == Some(bytes),
            _ => name.pci.is_some() && name.pci == text(&bytes).and_then(pci),
        };
        let index = self.names.iter().find(is_it)?.index;
        if self.gpus.len() >= MOST && !self.gpus.contains_key(&(call.pid, device)) {
            return None;
        }
        let before = self.gpus.insert((call.pid, device), index);
        (before != Some(index)).then_some((device, index))
    }

    /// Where the memory lies that a call takes.
    pub(super) fn of(&self, call: &Call, kind: Kind) -> Place {
        if !kind.is_device() {
            return Place::Unknown;
        }
        // Where there is one GPU no other can be meant.
        if let ([name, ..], 1) = (&self.names[..], self.count) {
            return Place::Gpu(name.index);
        }
        let argument = |index: u8| call.value(Value::Arg(index));
        let owned = |owner| self.owners.get(&(call.pid, owner)).copied();
        let device = match call.function.place {
            Where::Current => self.current(call),
            Where::Stream(index) => argument(index).and_then(|stream| {
                if DEFAULT_STREAMS.contains(&stream) {
                    self.current(call)
                } else {
                    owned(Owner::Stream(stream))
                }
            }),
            Where::Pool(index) => argument(index).and_then(|pool| owned(Owner::Pool(pool))),
            Where::Location(_) => located(call),
        };
        let Some(device) = device else { return Place::Unknown };
        self.gpus.get(&(call.pid, device)).map_or(Place::Ordinal(device), |index| Place::Gpu(*index))
    }

    /// A process is gone, or runs another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.owners.retain(|(owner, _), _| *owner != pid);
        self.gpus.retain(|(owner, _), _| *owner != pid);
    }

    fn current(&self, call: &Call) -> Option<u32> {
        self.owners.get(&(call.pid, Owner::Context(call.context?))).copied()
    }

    fn own(&mut self, pid: u32, owner: Owner, device: Option<u32>) {
        let key = (pid, owner);
        match device {
            Some(device) if self.owners.len() < MOST || self.owners.contains_key(&key) => {
                self.owners.insert(key, device);
            }
            // A handle that comes again is another's.
            _ => {
                self.owners.remove(&key);
            }
        }
    }

    fn disown(&mut self, pid: u32, owner: Owner) {
        self.owners.remove(&(pid, owner));
    }
}

/// Type and number of a location, as they lie in memory one after the other.
fn location(call: &Call) -> Option<(u32, u32)> {
    let Where::Location(out) = call.function.place else { return None };
    let location = (*call.outs.get(usize::from(out))?)?.to_ne_bytes();
    let (kind, number) = location.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*kind), u32::from_ne_bytes(*number.first_chunk()?)))
}

fn located(call: &Call) -> Option<u32> {
    location(call).filter(|(kind, _)| *kind == LOCATION_DEVICE).map(|(_, number)| number)
}

/// Whether a call takes memory of the host, by the location that it names.
pub(super) fn is_on_host(call: &Call) -> bool {
    location(call).is_some_and(|(kind, _)| kind != LOCATION_DEVICE)
}

/// "GPU-" or "MIG-", and 16 bytes as hexadecimal digits in groups.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.get(4..)?.bytes().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Text that ends with a NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(bytes.get(..length)?).ok()
}

/// "0000:65:00.0": NVML writes the domain with eight digits, the driver with four.
fn pci(text: &str) -> Option<Pci> {
    let mut parts = text.split([':', '.']).map(|part| u32::from_str_radix(part, 16).ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_numbers() {
        assert_eq!(pci("0000:0a:1F.0"), Some((0, 10, 31)));
        assert_eq!(pci("00000000:0A:1f.0"), pci("0000:0a:1F.0"));
        assert_eq!((pci(""), pci("0000:zz:00.0")), (None, None));
        let bytes = uuid("GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(bytes, Some(std::array::from_fn(|index| index as u8)));
        assert_eq!(bytes, uuid("MIG-00010203-0405-0607-0809-0a0b0c0d0e0f"));
        assert_eq!((uuid("GPU-simulated-0"), uuid("é")), (None, None));
        assert_eq!((text(b"ab\0c"), text(b"ab")), (Some("ab"), None));
    }
}
