//! What runs in the process without rights: names are looked up and stacks unwound.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    process::ExitCode,
};

use crate::{
    elf,
    unprivileged::{FAILED, READY, rights, socket},
    unwind::serve::{self, Unwinder},
};

/// First bytes of packets.
pub(super) const PLACES: u8 = b'p';
pub(super) const NAME: u8 = b'n';
pub(super) const DONE: u8 = b'd';
pub(super) const EXPORTED: u8 = b'e';
/// In an answer: nothing, or eight bytes of a number.
pub(super) const ABSENT: u8 = 0;
pub(super) const PRESENT: u8 = 1;
/// Between names of a request.
pub(super) const BETWEEN: u8 = 0;
/// Names of a request, at most.
const MOST_EXPORTED: usize = 64;

/// Kept of one name. Those of C++ templates have thousands of characters; what goes beyond is cut, and ends in `…`.
pub(super) const LONGEST_NAME: usize = 4 << 10;

/// Runs as the reader, until the tracer has closed the socket, which is standard input.
pub fn run() -> ExitCode {
    // Nobody reads what a panic would say.
    std::panic::set_hook(Box::new(|_| {}));
    let socket = io::stdin();
    let socket = socket.as_fd();
    if let Err(error) = rights::give_up() {
        // The tracer says it, and starts no other.
        let _ = socket::send(socket, format!("{}{error}", char::from(FAILED)).as_bytes(), None);
        return ExitCode::FAILURE;
    }
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(socket: BorrowedFd<'_>) -> io::Result<()> {
    socket::send(socket, &[READY], None)?;
    let mut unwinder = Unwinder::default();
    loop {
        let (packet, file) = socket::receive(socket)?;
        let (places, file) = match (packet.split_first(), file) {
            (Some((&PLACES, places)), Some(file)) => (places, file),
            (Some((&EXPORTED, wanted)), Some(file)) => {
                socket::send(socket, &exported(&File::from(file), wanted), None)?;
                continue;
            }
            (Some((&serve::STACK, stack)), None) => {
                unwinder.answer(socket, stack)?;
                continue;
            }
            _ => return Ok(()),
        };
        let offsets: Vec<u64> = places.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let file = File::from(file);
        #[cfg(test)]
        if super::misbehave::misbehave(&file) {
            continue;
        }
        match elf::names(&file, &offsets) {
            Ok(names) => {
                for (index, name) in names.into_iter().enumerate() {
                    let Some(name) = name else { continue };
                    let mut packet = vec![NAME];
                    packet.extend((index as u32).to_le_bytes());
                    packet.extend(readable(&name).as_bytes());
                    socket::send(socket, &packet, None)?;
                }
                socket::send(socket, &[DONE], None)?;
            }
            Err(error) => {
                socket::send(socket, format!("{}{error}", char::from(FAILED)).as_bytes(), None)?;
            }
        }
    }
}

/// Where a file's linker has put its code at an offset, and each of the variables and functions that are wanted.
fn exported(file: &File, wanted: &[u8]) -> Vec<u8> {
    let failed = |why: &str| format!("{}{why}", char::from(FAILED)).into_bytes();
    let Some((offset, names)) = wanted.split_first_chunk() else { return failed("an incomplete request") };
    let Ok(names) = std::str::from_utf8(names) else { return failed("a name that is no text") };
    let names: Vec<&str> = names.split(char::from(BETWEEN)).take(MOST_EXPORTED).collect();
    let linked = match elf::linked(file, names.iter().copied(), u64::from_le_bytes(*offset)) {
        Ok(linked) => linked,
        Err(error) => return failed(&error.to_string()),
    };
    let mut packet = vec![DONE];
    let mut put = |number: Option<u64>| match number {
        Some(number) => {
            packet.push(PRESENT);
            packet.extend(number.to_le_bytes());
        }
        None => packet.push(ABSENT),
    };
    put(linked.as_ref().map(|linked| linked.code));
    for name in names {
        put(linked.as_ref().and_then(|linked| linked.symbols.get(name).copied()));
    }
    packet
}

/// A name as it was written in the source.
fn readable(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let as_rust = rustc_demangle::try_demangle(&name).ok().map(|name| format!("{name:#}"));
    let readable = as_rust.or_else(|| cpp_demangle::Symbol::new(name.as_bytes()).ok()?.demangle().ok());
    cut(readable.unwrap_or_else(|| name.into_owned()))
}

fn cut(mut name: String) -> String {
    if name.len() > LONGEST_NAME {
        let end = (0..=LONGEST_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
        name.truncate(end);
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        for (written, source) in [
            ("main", "main"),
            ("_ZN4deep1SIiE5innerEl", "deep::S<int>::inner(long)"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_Zxyz", "_Zxyz"),
        ] {
            assert_eq!(readable(written.as_bytes()), source);
        }
        assert_eq!(readable(b"\xff"), "\u{fffd}");
        let long = readable("ä".repeat(LONGEST_NAME).as_bytes());
        assert!(long.ends_with("ä…") && long.len() <= LONGEST_NAME + '…'.len_utf8());
    }
}
