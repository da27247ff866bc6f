//! Programs at many functions of a file through one link each (`BPF_TRACE_UPROBE_MULTI`, Linux 6.6).
//!
//! A perf event for each function is let go of by waiting for a grace period, a tenth of a second for each and one
//! after the other: ten seconds for the functions of one CUDA driver. A link of this kind waits once for all.
//!
//! aya 0.14 cannot load programs for such links: the kernel has to know when it loads them
//! (`expected_attach_type`), because it is then that `bpf_get_attach_cookie` gets its meaning. So the object is parsed
//! a second time here, its references are set to the maps that aya has created, and two calls of bpf(2) do the rest.
//! `CONFIG` needs no care of its own: it lies in `.rodata`, which is one of those maps.
//!
//! The object's types and where its functions begin go with them: the kernel wants both of a program that hands a function to
//! `bpf_loop` (kernel/bpf/verifier.c check_ld_imm). What aya does besides is left out, as every kernel that has these links can
//! do without: replacing helpers that old kernels lack.

use std::{
    collections::HashSet,
    ffi::{CStr, CString, c_char},
    io,
    mem::{offset_of, size_of, zeroed},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::{
    BPF_F_UPROBE_MULTI_RETURN,
    bpf_attach_type::{BPF_TRACE_FENTRY, BPF_TRACE_UPROBE_MULTI},
    bpf_attr, bpf_attr__bindgen_ty_4 as ProgLoad, bpf_attr__bindgen_ty_11 as RawTracepoint,
    bpf_attr__bindgen_ty_12 as BtfLoad, bpf_attr__bindgen_ty_14 as LinkCreate,
    bpf_attr__bindgen_ty_14__bindgen_ty_3__bindgen_ty_7 as UprobeMulti, bpf_cmd, bpf_insn,
    bpf_prog_type::{BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_TRACING},
};
use thiserror::Error;
use tracing::debug;

/// Room for what the verifier says. It is requested after a failure only.
const LOG_BYTES: usize = 1 << 20;
/// The verifier gives up where a signal arrives.
const LOAD_ATTEMPTS: usize = 5;

/// How much of `union bpf_attr` is passed: up to the end of the last field that is set. The kernel takes the rest as 0,
/// and refuses anything else there, be it the padding behind a structure.
const PROG_LOAD_BYTES: usize = offset_of!(ProgLoad, func_info_cnt) + size_of::<u32>();
const BTF_LOAD_BYTES: usize = offset_of!(BtfLoad, btf_size) + size_of::<u32>();
const TRACING_LOAD_BYTES: usize = offset_of!(ProgLoad, attach_btf_id) + size_of::<u32>();
const LINK_CREATE_BYTES: usize =
    offset_of!(LinkCreate, __bindgen_anon_3) + offset_of!(UprobeMulti, pid) + size_of::<u32>();

// The numbered names are bindgen's: these are the parts of include/uapi/linux/bpf.h that are meant.
const _: () = {
    assert!(BPF_TRACE_UPROBE_MULTI as u32 == 48 && BPF_F_UPROBE_MULTI_RETURN == 1);
    assert!(offset_of!(ProgLoad, insns) == 8 && offset_of!(ProgLoad, license) == 16);
    assert!(offset_of!(ProgLoad, prog_name) == 48 && offset_of!(ProgLoad, expected_attach_type) == 68);
    assert!(offset_of!(LinkCreate, attach_type) == 8 && offset_of!(LinkCreate, __bindgen_anon_3) == 16);
    assert!(offset_of!(UprobeMulti, offsets) == 8 && offset_of!(UprobeMulti, cookies) == 24);
    assert!(offset_of!(UprobeMulti, flags) == 36 && offset_of!(UprobeMulti, pid) == 40);
    assert!(offset_of!(ProgLoad, prog_btf_fd) == 72 && offset_of!(ProgLoad, func_info) == 80);
    assert!(size_of::<bpf_insn>() == 8 && PROG_LOAD_BYTES == 92 && LINK_CREATE_BYTES == 60);
    assert!(offset_of!(BtfLoad, btf) == 0 && BTF_LOAD_BYTES == 20);
};

#[derive(Debug, Error)]
pub(super) enum MultiError {
    #[error("cannot read the eBPF object: {0}")]
    Object(#[from] aya_obj::ParseError),
    #[error("{0:?}")]
    References(#[from] aya_obj::relocation::EbpfRelocationError),
    #[error("no such program in the object")]
    NoProgram,
    #[error("map {0} was not created")]
    NoMap(String),
    #[error("cannot prepare the object's types: {0}")]
    Types(#[from] aya_obj::btf::BtfError),
    #[error("the kernel does not take the object's types: {0}")]
    LoadTypes(io::Error),
    #[error("load: {error}{log}")]
    Load { error: io::Error, log: String },
    #[error("this kernel has no such links: {0}")]
    NoLinks(io::Error),
    #[error("attach: {0}")]
    Attach(io::Error),
}

/// A program for the entry of functions, one for their return, and where they are attached. Dropping it detaches
/// them.
pub(super) struct Multi {
    enter: OwnedFd,
    leave: OwnedFd,
    links: Vec<OwnedFd>,
}

impl Multi {
    /// Loads the programs called `enter` and `leave` of `object` for use with the maps that `map` finds by name, and
    /// finds out whether the kernel can attach them.
    pub(super) fn load<'m>(
        object: &[u8],
        enter: &str,
        leave: &str,
        map: impl Fn(&str) -> Option<BorrowedFd<'m>>,
    ) -> Result<Self, MultiError> {
        let mut object = aya_obj::Object::parse(object)?;
        object.programs.retain(|name, _| [enter, leave].contains(&name.as_str()));
        let types = load_types(&mut object)?;
        refer_to_maps(&mut object, map)?;
        let types = types.as_ref().map(AsFd::as_fd);
        let (enter, leave) = (program(&object, enter, types)?, program(&object, leave, types)?);
        let multi = Self { enter, leave, links: Vec::new() };
        multi.probe()?;
        Ok(multi)
    }

    /// A kernel without these links loads the programs all the same, and says EINVAL to any attachment. One with
    /// them looks at the file, and refuses a directory as such.
    fn probe(&self) -> Result<(), MultiError> {
        match link(&self.enter, c"/", &[0], &[0], 0) {
            Err(e) if e.raw_os_error() != Some(libc::EBADF) => Err(MultiError::NoLinks(e)),
            _ => Ok(()),
        }
    }

    /// Attaches to functions of the file at `path`, each with its offset in the file and its cookie, for all
    /// processes: to all of them, or to none.
    pub(super) fn attach(&mut self, path: &Path, functions: &[(u64, u64)]) -> Result<(), MultiError> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|e| MultiError::Attach(e.into()))?;
        let (offsets, cookies): (Vec<u64>, Vec<u64>) = functions.iter().copied().unzip();
        let link =
            |program, flags| link(program, &path, &offsets, &cookies, flags).map_err(MultiError::Attach);
        // The return first: an entry without its return would leave a call under way for ever.
        let leave = link(&self.leave, BPF_F_UPROBE_MULTI_RETURN)?;
        let enter = link(&self.enter, 0)?;
        self.links.extend([leave, enter]);
        Ok(())
    }

    pub(super) fn is_attached(&self) -> bool {
        !self.links.is_empty()
    }

    /// Detaches from everything. Each link waits for a grace period, which they can share.
    pub(super) fn detach(&mut self) {
        std::thread::scope(|scope| {
            for link in self.links.drain(..) {
                scope.spawn(move || drop(link));
            }
        });
    }

    pub(super) fn programs(&self) -> [BorrowedFd<'_>; 2] {
        [self.enter.as_fd(), self.leave.as_fd()]
    }
}

impl Drop for Multi {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Puts descriptors of maps and code of called functions in their places.
fn refer_to_maps<'m>(
    object: &mut aya_obj::Object,
    map: impl Fn(&str) -> Option<BorrowedFd<'m>>,
) -> Result<(), MultiError> {
    let maps = std::mem::take(&mut object.maps);
    let mut known = Vec::new();
    for (name, definition) in &maps {
        let fd = map(name).ok_or_else(|| MultiError::NoMap(name.clone()))?;
        known.push((name.as_str(), fd.as_raw_fd(), definition));
    }
    let code: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(known.into_iter(), &code)?;
    Ok(object.relocate_calls(&code)?)
}

/// Hands the object's types to the kernel; `None` where the object or the kernel has none.
fn load_types(object: &mut aya_obj::Object) -> Result<Option<OwnedFd>, MultiError> {
    let Some(features) = aya::features().btf() else { return Ok(None) };
    let Some(types) = object.fixup_and_sanitize_btf(features)? else { return Ok(None) };
    let bytes = types.to_bytes();
    let mut attr = no_attr();
    attr.__bindgen_anon_7.btf = address(&bytes);
    attr.__bindgen_anon_7.btf_size = bytes.len() as u32;
    // SAFETY: the bytes outlive the call, and the length is theirs.
    unsafe { new_fd(bpf_cmd::BPF_BTF_LOAD, &attr, BTF_LOAD_BYTES) }.map(Some).map_err(MultiError::LoadTypes)
}

/// Loads a program whose references are in place.
fn program(
    object: &aya_obj::Object,
    name: &str,
    types: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, MultiError> {
    let program = object.programs.get(name).ok_or(MultiError::NoProgram)?;
    let function = object.functions.get(&program.function_key()).ok_or(MultiError::NoProgram)?;
    let code = &function.instructions;
    let functions = function.func_info.func_info_bytes();

    let mut attr = no_attr();
    attr.__bindgen_anon_3.prog_type = BPF_PROG_TYPE_KPROBE as u32;
    attr.__bindgen_anon_3.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    attr.__bindgen_anon_3.insns = address(code);
    attr.__bindgen_anon_3.insn_cnt = code.len() as u32;
    attr.__bindgen_anon_3.license = program.license.as_ptr() as u64;
    let mut prog_name = [0; 16];
    // The last byte stays 0.
    for (to, from) in prog_name[..15].iter_mut().zip(name.as_bytes()) {
        *to = *from as c_char;
    }
    attr.__bindgen_anon_3.prog_name = prog_name;
    if let Some(types) = types.filter(|_| !functions.is_empty()) {
        attr.__bindgen_anon_3.prog_btf_fd = types.as_raw_fd() as u32;
        attr.__bindgen_anon_3.func_info_rec_size = function.func_info_rec_size as u32;
        attr.__bindgen_anon_3.func_info = address(&functions);
        attr.__bindgen_anon_3.func_info_cnt = function.func_info.len() as u32;
    }

    let load = |attr: &bpf_attr| {
        let mut result = Err(io::ErrorKind::WouldBlock.into());
        for _ in 0..LOAD_ATTEMPTS {
            // SAFETY: code, functions and licence outlive the call, and so does the log where there is one; lengths are theirs.
            result = unsafe { new_fd(bpf_cmd::BPF_PROG_LOAD, attr, PROG_LOAD_BYTES) };
            if !matches!(&result, Err(e) if e.raw_os_error() == Some(libc::EAGAIN)) {
                break;
            }
        }
        result
    };
    load(&attr).map_err(|error| {
        let mut log = vec![0u8; LOG_BYTES];
        attr.__bindgen_anon_3.log_level = 1;
        attr.__bindgen_anon_3.log_size = LOG_BYTES as u32;
        attr.__bindgen_anon_3.log_buf = log.as_mut_ptr() as u64;
        // It fails once more; what it says is what is wanted.
        let _ = load(&attr);
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        log_verifier(&log);
        MultiError::Load { error, log: end_of_log(&log) }
    })
}

/// Attaches a program to `offsets` of a file.
fn link(program: &OwnedFd, path: &CStr, offsets: &[u64], cookies: &[u64], flags: u32) -> io::Result<OwnedFd> {
    assert_eq!(offsets.len(), cookies.len());
    let mut attr = no_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    // No process is named (`pid` 0): it is for all.
    attr.link_create.__bindgen_anon_3.uprobe_multi = UprobeMulti {
        path: path.as_ptr() as u64,
        offsets: address(offsets),
        ref_ctr_offsets: 0,
        cookies: address(cookies),
        cnt: offsets.len() as u32,
        flags,
        pid: 0,
    };
    // SAFETY: path, offsets and cookies outlive the call, which copies them; both lists have `cnt` elements.
    unsafe { new_fd(bpf_cmd::BPF_LINK_CREATE, &attr, LINK_CREATE_BYTES) }
}

/// Loads a program that does nothing for the entry of the kernel function that has the type `function`, attaches it,
/// and takes it away again.
pub(super) fn try_trampoline(function: u32) -> Result<(), MultiError> {
    // r0 = 0; exit (include/uapi/linux/bpf.h: BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT)
    let code: [u64; 2] = [0xb7, 0x95];
    let mut attr = no_attr();
    attr.__bindgen_anon_3.prog_type = BPF_PROG_TYPE_TRACING as u32;
    attr.__bindgen_anon_3.expected_attach_type = BPF_TRACE_FENTRY as u32;
    attr.__bindgen_anon_3.attach_btf_id = function;
    attr.__bindgen_anon_3.insns = address(&code);
    attr.__bindgen_anon_3.insn_cnt = code.len() as u32;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    // SAFETY: code and licence outlive the call.
    let program = unsafe { new_fd(bpf_cmd::BPF_PROG_LOAD, &attr, TRACING_LOAD_BYTES) }
        .map_err(|error| MultiError::Load { error, log: String::new() })?;
    let mut attr = no_attr();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    // SAFETY: no pointers: the program names its function.
    unsafe { new_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attr, size_of::<RawTracepoint>()) }
        .map(drop)
        .map_err(MultiError::Attach)
}

fn no_attr() -> bpf_attr {
    // SAFETY: a union of plain integers.
    unsafe { zeroed() }
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

/// A command of bpf(2) that makes a descriptor (closed on exec, as all of bpf's are), with the first `bytes` of `attr`.
///
/// # Safety
/// What the pointers in `attr` lead to must be valid for the lengths beside them: readable, and writable for the log.
unsafe fn new_fd(command: bpf_cmd, attr: &bpf_attr, bytes: usize) -> io::Result<OwnedFd> {
    assert!(bytes <= size_of::<bpf_attr>());
    // SAFETY: so many bytes of `attr` can be read, and these commands write none of them; the rest by the caller's
    // word.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command as i32, &raw const *attr, bytes) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Lines of the verifier's log in ours: the last ones, in which it says what it refuses.
const VERIFIER_LINES: usize = 40;

/// Puts the end of what the verifier says into the log.
pub(super) fn log_verifier(log: &str) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in lines.iter().skip(lines.len().saturating_sub(VERIFIER_LINES)) {
            debug!("verifier: {line}");
        }
    }
}

/// The end of a verifier's log, which is where it says why, with what sets it off from what stands before.
pub(super) fn end_of_log(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(4)..].join(" | ");
    if end.is_empty() { end } else { format!(": {end}") }
}
