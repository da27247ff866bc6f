//! The only layer of an image that is made here: a tar archive of one program and a directory to mount at.

use std::{io, path::Path};

const BLOCK: usize = 512;

/// An archive with `program` as `/NAME` and the empty directory `/data`.
pub fn with_program(program: &Path, name: &str) -> io::Result<Vec<u8>> {
    Ok(of(&std::fs::read(program)?, name))
}

fn of(program: &[u8], name: &str) -> Vec<u8> {
    let mut archive = Vec::with_capacity(program.len() + 8 * BLOCK);
    archive.extend(header("data/", b'5', 0o755, 0));
    archive.extend(header(name, b'0', 0o755, program.len()));
    archive.extend(program);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    // Two empty blocks end it.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// A ustar header (POSIX pax, "ustar Interchange Format"): numbers are octal text. Owner and time are 0.
fn header(name: &str, kind: u8, mode: u32, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum counts itself as blanks.
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_it() {
        use std::{io::Write, process::Stdio};
        let mut tar = std::process::Command::new("tar")
            .args(["-tvf", "-", "--full-time"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&of(&[7; 1000], "workload")).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<_>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((lines[0][0], lines[0].last()), ("drwxr-xr-x", Some(&"data/")));
        assert_eq!((lines[1][0], lines[1][2], lines[1].last()), ("-rwxr-xr-x", "1000", Some(&"workload")));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn archives_are_whole_blocks() {
        for size in [0, 1, 511, 512, 513] {
            let archive = of(&vec![1; size], "w");
            assert_eq!(archive.len() % BLOCK, 0);
            assert!(archive[archive.len() - 2 * BLOCK..].iter().all(|byte| *byte == 0));
        }
    }
}
