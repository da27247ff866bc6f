//! The reference workload: where it is, and whether it can run without libraries.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::DemoError;
use spark_trace_agent::doctor::engine::in_path;

const NAME: &str = "spark-trace-workload";
const VARIABLE: &str = "SPARK_TRACE_WORKLOAD";

/// The workload that was named, else the one of the environment, else beside `spark_trace`, else in PATH.
pub fn find(named: Option<PathBuf>, spark_trace: &Path) -> Result<PathBuf, DemoError> {
    let variable = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let found = match named.or_else(variable) {
        // What somebody names is not replaced by something else.
        Some(named) => named,
        None => {
            let beside = spark_trace.with_file_name(NAME);
            let tried = format!("{VARIABLE}, {}, {NAME} in PATH", beside.display());
            Some(beside)
                .filter(|path| path.is_file())
                .or_else(|| in_path(NAME))
                .ok_or(DemoError::NoWorkload(tried))?
        }
    };
    found.canonicalize().map_err(DemoError::io(&found))
}

/// Refuses a program that needs a loader and libraries.
pub fn check_static(program: &Path) -> Result<(), DemoError> {
    let dynamic = File::open(program)
        .and_then(|mut file| has_interpreter(&mut file))
        .map_err(DemoError::io(program))?;
    if dynamic { Err(DemoError::Dynamic(program.to_owned())) } else { Ok(()) }
}

/// Whether a little-endian 64-bit ELF file has a PT_INTERP segment (elf(5)).
fn has_interpreter(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Err(io::Error::other("not a program (64-bit ELF)"));
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let mut offset = [0; 8];
    offset.copy_from_slice(&header[32..40]);
    let (offset, size, count) = (u64::from_le_bytes(offset), half(54), half(56));
    for index in 0..count {
        let mut kind = [0; 4];
        file.seek(SeekFrom::Start(offset.saturating_add(u64::from(index) * u64::from(size))))?;
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn program(segment: u8) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        elf.extend([segment, 0, 0, 0]);
        elf.resize(64 + 56, 0);
        elf
    }

    #[test]
    fn programs_with_an_interpreter_are_dynamic() {
        assert!(has_interpreter(&mut Cursor::new(program(3))).unwrap());
        assert!(!has_interpreter(&mut Cursor::new(program(1))).unwrap());
        assert!(has_interpreter(&mut Cursor::new(&program(3)[..64])).is_err());
        assert!(has_interpreter(&mut Cursor::new(b"#!/bin/sh\n")).is_err());
    }

    #[test]
    fn a_workload_that_was_named_and_is_not_there_is_an_error() {
        let error = find(Some("/no/such".into()), Path::new("/x")).unwrap_err().to_string();
        assert!(error.contains("/no/such"), "{error}");
    }
}
