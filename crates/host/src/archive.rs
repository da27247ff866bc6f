//! The only layer of an image that is made here: a tar archive of one program and a directory to mount at.

use std::{io, path::Path};

use tar::{Builder, EntryType, Header};

/// An archive with `program` as `/NAME` and the empty directory `/data`.
pub fn with_program(program: &Path, name: &str) -> io::Result<Vec<u8>> {
    of(&std::fs::read(program)?, name)
}

/// Owner and time are 0, so that the same program makes the same archive.
fn of(program: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, content) in
        [("data/", EntryType::Directory, &[][..]), (name, EntryType::Regular, program)]
    {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content)?;
    }
    archive.into_inner()
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
        tar.stdin.take().unwrap().write_all(&of(&[7; 1000], "workload").unwrap()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<_>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((lines[0][0], lines[0].last()), ("drwxr-xr-x", Some(&"data/")));
        assert_eq!((lines[1][0], lines[1][2], lines[1].last()), ("-rwxr-xr-x", "1000", Some(&"workload")));
        assert_eq!(lines.len(), 2);
    }
}
