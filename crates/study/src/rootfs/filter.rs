//! An image's archive without what must not lie on the host: device nodes, and rights of a program that are not its
//! caller's.

use std::io::{self, Read, Write};

/// A tar archive is made of these (POSIX, pax, "ustar Interchange Format").
const BLOCK: usize = 512;
const MODE: std::ops::Range<usize> = 100..108;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
/// Set-user-ID and set-group-ID (inode(7)).
const PRIVILEGED: u64 = 0o6000;
/// A file's names and other facts beside its header. Engines write a few hundred bytes.
const LONGEST_FACTS: u64 = 1 << 20;

/// What was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub devices: u64,
    pub privileged: u64,
}

/// Copies the archive.
pub fn copy(mut archive: impl Read, mut out: impl Write) -> io::Result<LeftOut> {
    let mut left_out = LeftOut::default();
    // Headers that say more of the file that follows.
    let mut before = Vec::new();
    let mut size_before = None;
    let mut header = [0; BLOCK];
    loop {
        match archive.read_exact(&mut header) {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return out.flush().map(|()| left_out),
            read => read?,
        }
        if header.iter().all(|byte| *byte == 0) {
            // Two zero blocks end an archive. `tar` reads nothing after them and may be gone; the engine writes on.
            out.write_all(&[0; 2 * BLOCK])?;
            out.flush()?;
            io::copy(&mut archive, &mut io::sink())?;
            return Ok(left_out);
        }
        let size = number(&header[SIZE]).ok_or_else(|| damaged("a size"))?;
        match header[KIND] {
            // Of the next file: facts of pax, long names of GNU.
            kind @ (b'x' | b'L' | b'K') => {
                if size > LONGEST_FACTS {
                    return Err(damaged("a name"));
                }
                before.extend_from_slice(&header);
                let begin = before.len();
                copy_exactly(&mut archive, &mut before, size)?;
                if kind == b'x' {
                    size_before = pax_size(before.get(begin..).unwrap_or_default()).or(size_before);
                }
                if before.len() as u64 > 4 * LONGEST_FACTS {
                    return Err(damaged("a name"));
                }
                continue;
            }
            // Character and block devices.
            b'3' | b'4' => {
                left_out.devices += 1;
                copy_exactly(&mut archive, &mut io::sink(), size_before.unwrap_or(size))?;
            }
            kind => {
                let mode = number(&header[MODE]).ok_or_else(|| damaged("a mode"))?;
                // Of a directory it is a group for what is made in it, and gives nobody rights.
                if mode & PRIVILEGED != 0 && kind != b'5' {
                    left_out.privileged += 1;
                    set_mode(&mut header, mode & !PRIVILEGED);
                }
                out.write_all(&before)?;
                out.write_all(&header)?;
                copy_exactly(&mut archive, &mut out, size_before.unwrap_or(size))?;
            }
        }
        before.clear();
        size_before = None;
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the engine's archive is damaged: {what} in it is none"),
    )
}

/// A file's contents, which fill blocks.
fn copy_exactly(archive: &mut impl Read, out: &mut impl Write, size: u64) -> io::Result<()> {
    let whole = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| damaged("a size"))?;
    if io::copy(&mut archive.take(whole), out)? < whole {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// In octal digits, or with the first bit set in binary (GNU tar, star).
fn number(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            Some(value.checked_mul(256)? | u64::from(*byte))
        });
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The record `LENGTH size=BYTES` among facts of pax.
fn pax_size(facts: &[u8]) -> Option<u64> {
    let mut rest = facts;
    let mut size = None;
    while let Some(blank) = rest.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(rest.get(..blank)?).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length)?;
        if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok()?.trim_end().parse().ok();
        }
        rest = rest.get(length..)?;
    }
    size
}

fn set_mode(header: &mut [u8; BLOCK], mode: u64) {
    header[MODE].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    header[CHECKSUM].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use tar::{Archive, Builder, EntryType, Header};

    use super::*;

    fn header(kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    }

    fn archive() -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let long = format!("{}/shell", "directory".repeat(30));
        let files: &[(&str, EntryType, u32, &[u8])] = &[
            ("dir", EntryType::Directory, 0o2755, b""),
            (&long, EntryType::Regular, 0o4755, b"program"),
            ("group", EntryType::Regular, 0o2711, &[7; 1025]),
            (&format!("{}/disk", "device".repeat(40)), EntryType::Block, 0o666, b""),
            ("tty", EntryType::Char, 0o666, b""),
            ("tmp", EntryType::Directory, 0o1777, b""),
            ("plain", EntryType::Regular, 0o644, b"text"),
        ];
        for (name, kind, mode, contents) in files {
            builder.append_data(&mut header(*kind, *mode, contents.len() as u64), name, *contents).unwrap();
        }
        builder.append_pax_extensions([("size", b"3".as_slice()), ("comment", b"x=1")]).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 0o755, 3), "pax", &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn devices_and_rights_are_left_out_and_nothing_else() {
        let mut out = Vec::new();
        let left_out = copy(archive().as_slice(), &mut out).unwrap();
        assert_eq!(left_out, LeftOut { devices: 2, privileged: 2 });
        let mut found = Vec::new();
        for entry in Archive::new(out.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            found.push((name, entry.header().mode().unwrap(), contents.len()));
        }
        let expected = [
            ("dir", 0o2755, 0),
            ("shell", 0o755, 7),
            ("group", 0o711, 1025),
            ("tmp", 0o1777, 0),
            ("plain", 0o644, 4),
            ("pax", 0o755, 3),
        ];
        assert_eq!(found, expected.map(|(name, mode, size)| (name.to_owned(), mode, size)));
    }

    #[test]
    fn a_reader_that_stops_at_the_end_of_the_archive_is_no_error() {
        /// Takes so many bytes, then breaks as a pipe does whose reader has ended.
        struct Ends(usize);
        impl Write for Ends {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut whole = archive();
        let mut out = Vec::new();
        copy(whole.as_slice(), &mut out).unwrap();
        // Padding, as engines and GNU tar write it.
        whole.resize(whole.len() + 20 * BLOCK, 0);
        assert!(copy(whole.as_slice(), Ends(out.len())).is_ok());
        assert!(copy(whole.as_slice(), Ends(out.len() - BLOCK)).is_err());
    }

    #[test]
    fn a_size_beside_the_header_counts() {
        // As engines write files of 8 GiB and more: the header's own size is 0.
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("size", b"600".as_slice())]).unwrap();
        let mut archive = builder.into_inner().unwrap();
        archive.truncate(2 * BLOCK);
        let mut empty = header(EntryType::Regular, 0o644, 0);
        empty.set_path("large").unwrap();
        empty.set_cksum();
        archive.extend_from_slice(empty.as_bytes());
        // Contents that look like a device.
        let mut device = header(EntryType::Block, 0o666, 0);
        device.set_cksum();
        archive.extend_from_slice(device.as_bytes());
        archive.extend_from_slice(&[0; 3 * BLOCK]);
        let mut out = Vec::new();
        assert_eq!(copy(archive.as_slice(), &mut out).unwrap(), LeftOut::default());
        assert_eq!(out, archive);
    }

    #[test]
    fn what_is_cut_or_no_archive_is_an_error() {
        let whole = archive();
        // In the middle of the contents of a file.
        assert!(copy(&whole[..whole.len() - 1400], io::sink()).is_err());
        assert!(copy([b'x'; BLOCK].as_slice(), io::sink()).is_err());
    }
}
