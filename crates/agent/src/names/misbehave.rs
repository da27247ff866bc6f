//! What a file that means harm might lead to: tests have the reader do it.

use std::{
    ffi::CString,
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    thread,
};

use crate::unprivileged::socket;

/// Does harm in the reader, where a file says so: what a file that means harm might lead to. Whether it has answered.
pub(super) fn misbehave(file: &File) -> bool {
    let mut word = [0; 16];
    // At a place, not from where it stands: a second reader of the file would find its end.
    let Ok(length) = file.read_at(&mut word, 0) else { return false };
    match std::str::from_utf8(&word[..length]).unwrap_or_default() {
        "abort" => std::process::abort(),
        "panic" => panic!("as a defect would"),
        "hang" => loop {
            thread::park();
        },
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; 16 << 20]);
            }
        }
        "lie" => socket::send(std::io::stdin().as_fd(), b"n\xff\xff\xff\xffname", None).is_ok(),
        "rights" => {
            answer_rights();
            true
        }
        _ => false,
    }
}

/// Tries what the reader may not do, and answers with a list of what it could do all the same, or `nothing`.
fn answer_rights() {
    let path = CString::new("/etc/passwd").unwrap();
    type Attempt = fn(&CString) -> i64;
    let attempts: [(&str, Attempt); 6] = [
        // SAFETY: system calls with valid arguments, which are refused.
        ("open", |path| unsafe {
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY)
        }),
        // SAFETY: as above.
        ("socket", |_| unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0) }),
        // SAFETY: as above; a child of it would end at once.
        ("process", |_| unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) }),
        // SAFETY: as above.
        ("kill", |_| unsafe { libc::syscall(libc::SYS_kill, 1, 0) }),
        // SAFETY: as above.
        ("trace", |_| unsafe { libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0) }),
        // SAFETY: as above.
        ("program", |path| unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), 0, 0) }),
    ];
    let could: Vec<&str> = attempts
        .iter()
        .filter(|(_, attempt)| {
            let refused =
                attempt(&path) == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM);
            !refused
        })
        .map(|(what, _)| *what)
        .collect();
    let answer = if could.is_empty() { "nothing".to_owned() } else { could.join(" ") };
    let _ = socket::send(std::io::stdin().as_fd(), format!("n\0\0\0\0{answer}").as_bytes(), None);
    let _ = socket::send(std::io::stdin().as_fd(), b"d", None);
}
