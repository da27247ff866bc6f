//! Bytes of the event ring buffer to events. Pure.

mod calls;
mod query;

pub use calls::{Call, MappedLibrary};
pub use query::{FilePart, FileRead, Query};

use spark_trace_common::event::{
    CgroupEvent, CgroupOp, EventKind, FileNameEvent, MappingEvent, MappingOp, ProcessEvent, ProcessOp,
};
use spark_trace_recording::Mobility;
use thiserror::Error;
use zerocopy::FromBytes;

/// A record that is not what the kernel side of this build sends.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("event of unknown kind {0}")]
    Kind(u32),
    #[error("{what} event of {len} bytes")]
    Length { what: &'static str, len: usize },
    #[error("{what} event with unknown operation {op}")]
    Operation { what: &'static str, op: u32 },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Mapping(Mapping),
    Process(Process),
    Cgroup(Cgroup),
    FileName(FileName),
    Call(Box<Call>),
    Library(MappedLibrary),
    Query(Box<Query>),
    FileRead(Box<FileRead>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    pub op: MappingOp,
    pub at_ns: u64,
    pub pid: u32,
    pub address: u64,
    pub length: i64,
    pub detail: u64,
    pub prot: u32,
    /// Addresses of the user stack, innermost first; empty where there is none.
    pub stack: Vec<u64>,
    /// Return address of the system call's stub, if it keeps no frame.
    pub caller: u64,
    /// `mremap`: where the range was.
    pub from: Option<u64>,
    /// Number of the copy of its user stack.
    pub copy: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    pub op: ProcessOp,
    pub at_ns: u64,
    pub pid: u32,
    pub parent: u32,
    pub cgroup: u64,
    pub status: u32,
    pub rss_peak_pages: Option<u64>,
    pub comm: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cgroup {
    pub op: CgroupOp,
    pub at_ns: u64,
    pub id: u64,
    pub parent: u64,
    pub target: bool,
    pub populated: bool,
    /// Pages charged and their high-water mark.
    pub usage_pages: Option<(u64, u64)>,
    /// Processes killed in it for want of memory.
    pub oom_kills: Option<u64>,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FileName {
    pub device: u32,
    pub inode: u64,
    /// Path below the root of its file system; `None` where the kernel had no name for it.
    pub path: Option<String>,
}

/// Decodes one record.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let kind = bytes.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    match kind {
        k if k == EventKind::Mapping as u32 => mapping(bytes),
        k if k == EventKind::Process as u32 => process(bytes),
        k if k == EventKind::Cgroup as u32 => cgroup(bytes),
        k if k == EventKind::FileName as u32 => file_name(bytes),
        k if k == EventKind::Call as u32 => calls::call(bytes),
        k if k == EventKind::Library as u32 => calls::library(bytes),
        k if k == EventKind::MemoryAnswer as u32 => query::answer(bytes),
        other => Err(DecodeError::Kind(other)),
    }
}

/// Reads a wire record; the ring buffer hands them out 8-byte aligned, but nothing here relies on it.
fn record<T: FromBytes>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let read = T::read_from_prefix(bytes).map(|(record, _)| record);
    read.map_err(|_| DecodeError::Length { what, len: bytes.len() })
}

fn mapping(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: MappingEvent = record("mapping", bytes)?;
    let ops = [MappingOp::Mmap, MappingOp::Munmap, MappingOp::Mremap, MappingOp::Brk, MappingOp::Madvise];
    Ok(Event::Mapping(Mapping {
        op: operation("mapping", &ops, raw.op, |op| op as u32)?,
        at_ns: raw.at_ns,
        pid: raw.tgid,
        address: raw.address,
        length: raw.length,
        detail: raw.detail,
        prot: raw.prot,
        stack: raw.stack.iter().copied().take(raw.frames as usize).collect(),
        caller: raw.caller,
        from: (raw.op == MappingOp::Mremap as u32).then_some(raw.from),
        copy: (raw.copy != 0).then_some(raw.copy),
    }))
}

fn process(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: ProcessEvent = record("process", bytes)?;
    let ops = [ProcessOp::Fork, ProcessOp::Exec, ProcessOp::Exit];
    Ok(Event::Process(Process {
        op: operation("process", &ops, raw.op, |op| op as u32)?,
        at_ns: raw.at_ns,
        pid: raw.tgid,
        parent: raw.parent,
        cgroup: raw.cgroup,
        status: raw.status,
        rss_peak_pages: (raw.has_rss != 0).then_some(raw.rss_peak_pages),
        comm: text(&raw.comm),
    }))
}

fn cgroup(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: CgroupEvent = record("cgroup", bytes)?;
    let ops = [CgroupOp::Mkdir, CgroupOp::Rmdir, CgroupOp::Populated];
    Ok(Event::Cgroup(Cgroup {
        op: operation("cgroup", &ops, raw.op, |op| op as u32)?,
        at_ns: raw.at_ns,
        id: raw.id,
        parent: raw.parent,
        target: raw.target != 0,
        populated: raw.populated != 0,
        usage_pages: (raw.has_usage != 0).then_some((raw.usage_pages, raw.peak_pages)),
        oom_kills: (raw.has_oom_kills != 0).then_some(raw.oom_kills),
        path: text(&raw.path),
    }))
}

fn file_name(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: FileNameEvent = record("file name", bytes)?;
    let names = raw.names.get(..raw.length as usize).unwrap_or(&raw.names);
    // Components come innermost first, each with its NUL.
    let mut components: Vec<_> =
        names.split(|b| *b == 0).filter(|c| !c.is_empty()).map(String::from_utf8_lossy).collect();
    components.reverse();
    let path = (!components.is_empty()).then(|| {
        let start = if raw.truncated != 0 { ".../" } else { "/" };
        format!("{start}{}", components.join("/"))
    });
    Ok(Event::FileName(FileName { device: raw.device, inode: raw.inode, path }))
}

fn operation<T: Copy>(
    what: &'static str,
    all: &[T],
    raw: u32,
    number: fn(T) -> u32,
) -> Result<T, DecodeError> {
    all.iter().copied().find(|op| number(*op) == raw).ok_or(DecodeError::Operation { what, op: raw })
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A kernel `dev_t` as `major:minor` (include/linux/kdev_t.h: 20 bits of minor).
pub fn device_name(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}

/// Name of a migrate type (include/linux/mmzone.h enum migratetype).
pub const fn mobility(class: u32) -> Mobility {
    match class & 0xff {
        0 => Mobility::Unmovable,
        1 => Mobility::Movable,
        2 => Mobility::Reclaimable,
        _ => Mobility::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_common::{event::FILE_NAME_LEN, task::COMM_LEN};
    use zerocopy::IntoBytes;

    #[test]
    fn process_events_keep_their_fields() {
        let mut comm = [0; COMM_LEN];
        comm[..4].copy_from_slice(b"sh\xff\0");
        let raw = ProcessEvent {
            kind: EventKind::Process as u32,
            op: ProcessOp::Exit as u32,
            at_ns: 7,
            tgid: 42,
            parent: 1,
            cgroup: 99,
            status: 9,
            has_rss: 0,
            rss_peak_pages: 5,
            comm,
        };
        let Event::Process(event) = decode(raw.as_bytes()).unwrap() else { panic!("not a process event") };
        assert_eq!((event.pid, event.status, event.rss_peak_pages), (42, 9, None));
        assert_eq!(event.comm, "sh\u{fffd}");
    }

    #[test]
    fn file_names_are_put_together_from_the_root() {
        let mut names = [0; FILE_NAME_LEN];
        names[..13].copy_from_slice(b"libc.so\0usr\0\0");
        let mut raw = FileNameEvent {
            kind: EventKind::FileName as u32,
            device: 0x80_0001,
            inode: 5,
            length: 12,
            truncated: 0,
            names,
        };
        let path = |raw: &FileNameEvent| match decode(raw.as_bytes()).unwrap() {
            Event::FileName(f) => f.path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path(&raw).as_deref(), Some("/usr/libc.so"));
        raw.truncated = 1;
        assert_eq!(path(&raw).as_deref(), Some(".../usr/libc.so"));
        raw.length = 0;
        assert_eq!(path(&raw), None);
        raw.length = u32::MAX;
        assert!(path(&raw).is_some(), "a length beyond the record is cut to it");
        assert_eq!(device_name(raw.device), "8:1");
    }

    #[test]
    fn what_is_not_ours_is_an_error() {
        assert_eq!(decode(&[]), Err(DecodeError::Kind(0)));
        assert_eq!(decode(&9u32.to_ne_bytes()), Err(DecodeError::Kind(9)));
        let short = (EventKind::Cgroup as u32).to_ne_bytes();
        assert_eq!(decode(&short), Err(DecodeError::Length { what: "cgroup", len: 4 }));
        let mut bad = vec![0; size_of::<MappingEvent>()];
        bad[..4].copy_from_slice(&(EventKind::Mapping as u32).to_ne_bytes());
        bad[4..8].copy_from_slice(&77u32.to_ne_bytes());
        assert_eq!(decode(&bad), Err(DecodeError::Operation { what: "mapping", op: 77 }));
    }
}
