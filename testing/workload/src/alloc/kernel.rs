//! Memory that the kernel keeps for us and no mapping shows: data in pipes and in sockets.

use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Env, Holding, Taken};
use crate::cli::AllocArgs;
use crate::output::SourceRecord;

/// Closing the descriptors is all there is to releasing them.
struct Descriptors(#[allow(dead_code, reason = "kept to stay open")] Vec<[OwnedFd; 2]>);

impl Holding for Descriptors {
    fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

type MakePair = unsafe fn(*mut libc::c_int) -> libc::c_int;

/// Two connected descriptors from `pipe2` or `socketpair`.
fn make_pair(make: MakePair, what: &str, index: u32, count: u32) -> Result<[OwnedFd; 2]> {
    let mut pair = [-1; 2];
    // SAFETY: both makers below write two descriptors to the array they are given, and nothing else.
    if unsafe { make(pair.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).with_context(|| {
            format!("{what} {} of {count} (each takes two descriptors: ulimit -n)", index + 1)
        });
    }
    // SAFETY: the call has just given us these two, and nobody else closes them.
    Ok(pair.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// SAFETY for callers: `pair` must be valid for writing two descriptors.
unsafe fn make_pipe(pair: *mut libc::c_int) -> libc::c_int {
    // SAFETY: as promised by the caller.
    unsafe { libc::pipe2(pair, libc::O_NONBLOCK | libc::O_CLOEXEC) }
}

/// SAFETY for callers: `pair` must be valid for writing two descriptors.
unsafe fn make_sockets(pair: *mut libc::c_int) -> libc::c_int {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: as promised by the caller.
    unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair) }
}

/// Takes as many descriptors as we may: the usual limit of 1024 is a default for select(2), not a quota.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to, then to read from. If either fails, the old limit
    // stands, and what runs into it says so.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Writes chunks of `buffer` until no more fits; returns the bytes that did.
#[inline(always)]
fn fill(fd: &OwnedFd, buffer: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    loop {
        // SAFETY: the buffer is valid for its length, and the descriptor open while borrowed.
        let rc = unsafe { libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len()) };
        match u64::try_from(rc) {
            Ok(bytes) => written += bytes,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// A page at a time: a pipe is a ring of pages, and each write this large takes one of its own.
#[inline(never)]
fn fill_pipe(fd: &OwnedFd, page: &[u8]) -> io::Result<u64> {
    black_box(fill(fd, page))
}

#[inline(never)]
fn fill_socket(fd: &OwnedFd, chunk: &[u8]) -> io::Result<u64> {
    let filled = fill(fd, chunk)?;
    Ok(black_box(filled))
}

pub fn pipes(args: &AllocArgs, env: &Env) -> Result<Taken> {
    raise_descriptor_limit();
    let count = args.pipes.unwrap_or_default();
    let page = vec![0x70; env.machine.page];
    let mut pairs = Vec::new();
    let (mut bytes, mut least, mut most) = (0, u64::MAX, 0);
    for index in 0..count {
        let pair = make_pair(make_pipe, "pipe", index, count)?;
        let filled = fill_pipe(&pair[1], &page).context("cannot fill a pipe")?;
        bytes += filled;
        least = least.min(filled);
        most = most.max(filled);
        pairs.push(pair);
    }
    // Beyond fs.pipe-user-pages-soft, new pipes of a user without CAP_SYS_RESOURCE are made smaller.
    let detail = json!({ "pipes": count, "bytes_per_pipe_least": least, "bytes_per_pipe_most": most });
    Ok(Taken::new(SourceRecord::new("kernel-other", "pipe", bytes, detail), Descriptors(pairs)))
}

pub fn sockets(args: &AllocArgs, _env: &Env) -> Result<Taken> {
    raise_descriptor_limit();
    let count = args.sockets.unwrap_or_default();
    // Not by pages: the kernel puts each write into a buffer of its own making anyhow.
    let chunk = [0x73; 4096];
    let mut pairs = Vec::new();
    let mut payload = 0;
    let mut charged = Some(0);
    for index in 0..count {
        let pair = make_pair(make_sockets, "socket pair", index, count)?;
        for socket in &pair {
            payload += fill_socket(socket, &chunk).context("cannot fill a socket")?;
        }
        // After both directions: what is charged to a socket is what it has sent and nobody has read.
        for socket in &pair {
            charged = charged.zip(sent_charge(socket)).map(|(sum, more)| sum + more);
        }
        pairs.push(pair);
    }
    let detail = json!({
        "pairs": count,
        "payload_bytes": payload,
        // The buffers with their overhead (truesize), as the socket layer counts them; this is `bytes` where
        // known.
        "charged_bytes": charged,
        "family": "unix",
        // Unix sockets are charged to a control group as kernel memory; its "sock" counts TCP and UDP only.
        "memcg": "kernel",
    });
    Ok(Taken::new(
        SourceRecord::new("sock", "unix-socket", charged.unwrap_or(payload), detail),
        Descriptors(pairs),
    ))
}

/// Memory charged to the socket for what it has sent.
fn sent_charge(fd: &OwnedFd) -> Option<u64> {
    /// Of SO_MEMINFO's array (uapi/linux/sock_diag.h).
    const SK_MEMINFO_WMEM_ALLOC: usize = 2;
    let mut info = [0_u32; 16];
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: `info` is valid for `len` bytes, and both outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    let known = usize::try_from(len).is_ok_and(|len| len > SK_MEMINFO_WMEM_ALLOC * size_of::<u32>());
    (rc == 0 && known).then(|| u64::from(info[SK_MEMINFO_WMEM_ALLOC]))
}
