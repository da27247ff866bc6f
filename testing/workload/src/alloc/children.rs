//! Memory of other tasks: forked children, and threads.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::map::Mapping;
use super::{Env, Holding, Taken};
use crate::child;
use crate::cli::AllocArgs;
use crate::output::SourceRecord;
use crate::sys::{Machine, SelfStatus};

/// Both close on exec only: a fork inherits them.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut pair = [-1; 2];
    // SAFETY: `pair` is valid for the two descriptors that pipe2 writes.
    if unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error()).context("pipe2 for a child (ulimit -n?)");
    }
    // SAFETY: pipe2 has just given us these two, and nobody else closes them.
    let [read, write] = pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((read, write))
}

/// What a child reports once it holds its memory; all as one write that fits into a pipe at once.
#[derive(Debug, PartialEq, Eq)]
struct ChildReport {
    errno: u64,
    address: u64,
    /// RssAnon before and after its own touching, or u64::MAX without /proc. What it has before is ours,
    /// shared with it by the fork: counted in both processes, and in memory once.
    inherited: u64,
    rss_anon: u64,
    /// All of its page tables: a fork copies those of private memory.
    page_tables: u64,
}

impl ChildReport {
    const LEN: usize = 40;

    fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields = [self.errno, self.address, self.inherited, self.rss_anon, self.page_tables];
        for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let field = |index: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            u64::from_ne_bytes(field)
        };
        Self {
            errno: field(0),
            address: field(1),
            inherited: field(2),
            rss_anon: field(3),
            page_tables: field(4),
        }
    }
}

/// The children wait for the writing end of a pipe to close, as it also does should we die: none stays
/// behind.
struct Children {
    pids: Vec<libc::pid_t>,
    release: OwnedFd,
}

impl Holding for Children {
    fn release(self: Box<Self>) -> Result<()> {
        let Self { pids, release } = *self;
        drop(release);
        pids.into_iter().try_for_each(child::reap)
    }
}

/// One after the other, so that each inherits the same from us. They share with us all that was touched
/// before them.
pub fn children(args: &AllocArgs, env: &Env) -> Result<Taken> {
    let count = args.children.unwrap_or_default();
    let len = env.machine.pages_up(args.child_anon.unwrap_or_default())?;
    let (wait, release) = pipe()?;
    let mut children = Children { pids: Vec::new(), release };
    let mut sources = Vec::new();
    for index in 0..count {
        let (report_from, report_to) = pipe()?;
        let pid = fork_child()
            .with_context(|| format!("fork of child {} of {count} (ulimit -u? pids.max?)", index + 1))?;
        if pid == 0 {
            // Ours is the only thread (threads come after children in the plan), so the copy is all in order
            // here.
            drop(children.release);
            drop(report_from);
            let failed = be_child(wait, File::from(report_to), len, env.machine).is_err();
            // SAFETY: leaves at once. The copies of the parent's buffers and files must not be flushed or
            // removed.
            unsafe { libc::_exit(i32::from(failed)) };
        }
        children.pids.push(pid);
        drop(report_to);
        let mut bytes = [0; ChildReport::LEN];
        File::from(report_from)
            .read_exact(&mut bytes)
            .with_context(|| format!("child {pid} died before it had its memory"))?;
        let report = ChildReport::from_bytes(&bytes);
        if report.errno != 0 {
            let error = io::Error::from_raw_os_error(i32::try_from(report.errno).unwrap_or(libc::EIO));
            return Err(error).with_context(|| format!("child {pid} cannot map {len} bytes"));
        }
        let known = |bytes: u64| (bytes != u64::MAX).then_some(bytes);
        let detail = json!({
            "pid": pid,
            "index": index,
            "inherited_rss_anon": known(report.inherited),
            "rss_anon": known(report.rss_anon),
            "page_tables": known(report.page_tables),
        });
        let address = usize::try_from(report.address).context("address of a child")?;
        sources.push(SourceRecord::new("anon", "child-anon", len as u64, detail).at(address));
    }
    Ok(Taken { sources, holding: Box::new(children) })
}

#[inline(never)]
fn fork_child() -> io::Result<libc::pid_t> {
    // SAFETY: no other thread of ours exists at this point, so that the child may do anything we might.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

fn be_child(wait: OwnedFd, mut report_to: File, len: usize, machine: Machine) -> Result<()> {
    let unknown = SelfStatus { rss_anon: u64::MAX, page_tables: u64::MAX, ..SelfStatus::default() };
    let status = || SelfStatus::read().unwrap_or(unknown);
    let inherited = status().rss_anon;
    let mut mapping = match Mapping::base_pages(len) {
        Ok(mapping) => mapping,
        Err(error) => {
            let errno =
                error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).unwrap_or(libc::EIO);
            let errno = u64::try_from(errno).unwrap_or(1);
            let report =
                ChildReport { errno, address: 0, inherited, rss_anon: u64::MAX, page_tables: u64::MAX };
            return report_to.write_all(&report.to_bytes()).context("pipe to the parent");
        }
    };
    touch_child_anon(&mut mapping, machine.page);
    let SelfStatus { rss_anon, page_tables, .. } = status();
    let address = mapping.address() as u64;
    let report = ChildReport { errno: 0, address, inherited, rss_anon, page_tables };
    report_to.write_all(&report.to_bytes()).context("pipe to the parent")?;
    drop(report_to);
    // Until the end of file; interruptions are retried in there.
    File::from(wait).read_exact(&mut [0]).or_else(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error).context("pipe from the parent"),
    })
}

#[inline(never)]
fn touch_child_anon(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x6368_6c64>(page);
    black_box(mapping);
}

/// Each thread keeps its memory until its sender is dropped.
struct Threads(Vec<(Sender<()>, JoinHandle<Result<()>>)>);

impl Holding for Threads {
    fn release(self: Box<Self>) -> Result<()> {
        for (sender, handle) in self.0 {
            drop(sender);
            handle.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    }
}

pub fn threads(args: &AllocArgs, env: &Env) -> Result<Taken> {
    /// Far below a huge page, so that no stack becomes one.
    const STACK: usize = 256 << 10;
    let count = args.threads.unwrap_or_default();
    let len = env.machine.pages_up(args.thread_anon.unwrap_or_default())?;
    let machine = env.machine;
    let mut threads = Threads(Vec::new());
    let mut sources = Vec::new();
    for index in 0..count {
        let (hold, released) = channel::<()>();
        let (ready, is_ready) = channel();
        let work = move || -> Result<()> {
            let mut mapping = Mapping::base_pages(len)?;
            touch_thread_anon(&mut mapping, machine.page);
            // SAFETY: gettid takes nothing and cannot fail.
            let tid = unsafe { libc::syscall(libc::SYS_gettid) };
            // Only fails when the main thread has given up, and with it the process.
            let _ = ready.send((tid, mapping.address()));
            let _ = released.recv();
            Box::new(mapping).release()
        };
        let handle = std::thread::Builder::new()
            .name(format!("workload-{index}"))
            .stack_size(STACK)
            .spawn(work)
            .with_context(|| format!("thread {} of {count} (ulimit -u? pids.max?)", index + 1))?;
        let Ok((tid, address)) = is_ready.recv() else {
            return Err(match handle.join() {
                Ok(Err(error)) => error.context(format!("thread {} of {count}", index + 1)),
                _ => anyhow!("thread {} of {count} ended early", index + 1),
            });
        };
        threads.0.push((hold, handle));
        let detail = json!({ "tid": tid, "index": index, "name": format!("workload-{index}") });
        sources.push(SourceRecord::new("anon", "thread-anon", len as u64, detail).at(address));
    }
    Ok(Taken { sources, holding: Box::new(threads) })
}

#[inline(never)]
fn touch_thread_anon(mapping: &mut Mapping, page: usize) {
    mapping.write_each::<0x7468_7264>(page);
    black_box(mapping);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_survives_the_pipe() {
        let report = ChildReport {
            errno: 12,
            address: 0x7f00_0000_1000,
            inherited: u64::MAX,
            rss_anon: 5,
            page_tables: 6,
        };
        assert_eq!(ChildReport::from_bytes(&report.to_bytes()), report);
    }
}
