//! Writing recordings: a file is there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::schema::Recording;
use spark_trace_host::output_file::{PRIVATE, PUBLIC, Place};
pub use spark_trace_host::output_file::{WriteError, WriteOptions};

/// How hard a recording is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// zstd's own default: recordings are written once, right after a run.
    Quick,
    /// A third less, and a minute or more for the largest: for a disk with little room.
    Smallest,
}

impl Packing {
    const fn level(self) -> i32 {
        match self {
            Self::Quick => 3,
            Self::Smallest => 19,
        }
    }
}

/// What is written at once: a recording is tens of megabytes.
const BUFFER: usize = 256 << 10;

/// Refuses early what [`write`] would refuse at the end of a run.
pub fn refuse_existing(path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    Place::new(path)?.refuse_existing(options)
}

/// Writes `recording` to `path`, compressed where the name ends in `.zst`.
pub fn write(recording: &Recording, path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    write_at(recording, &Place::new(path)?, options)
}

/// The same where the directory is open already.
pub fn write_at(recording: &Recording, place: &Place, options: WriteOptions) -> Result<(), WriteError> {
    write_packed_at(recording, place, options, Packing::Quick)
}

/// The same, packed in a way.
pub fn write_packed_at(
    recording: &Recording,
    place: &Place,
    options: WriteOptions,
    packing: Packing,
) -> Result<(), WriteError> {
    let compressed = place.path().extension().is_some_and(|e| e == "zst");
    place.write(options, PRIVATE, |file| fill(file, recording, compressed.then_some(packing.level())))
}

/// Writes what was made of recordings, which holds the same names, in the same way.
pub fn write_bytes(bytes: &[u8], path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    write_bytes_at(bytes, &Place::new(path)?, options)
}

/// The same where the directory is open already.
pub fn write_bytes_at(bytes: &[u8], place: &Place, options: WriteOptions) -> Result<(), WriteError> {
    place.write(options, PRIVATE, |mut file| file.write_all(bytes))
}

/// Writes what is made as it is written, where the directory is open already.
pub fn write_with(
    content: &dyn Fn(&mut dyn Write) -> io::Result<()>,
    place: &Place,
    options: WriteOptions,
) -> Result<(), WriteError> {
    place.write(options, PRIVATE, |file| buffered(file, content))
}

/// Writes much of it at a time.
pub fn buffered(out: impl Write, content: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    content(&mut out)?;
    // A buffer that is dropped keeps its errors to itself.
    out.flush()
}

/// Writes what is for everybody, such as the pages of a site.
pub fn write_public(bytes: &[u8], path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    Place::new(path)?.write(options, PUBLIC, |mut file| file.write_all(bytes))
}

fn fill(file: &File, recording: &Recording, level: Option<i32>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    if let Some(level) = level {
        let mut encoder = zstd::Encoder::new(&mut out, level)?;
        encoder.include_checksum(true)?;
        write_text(recording, &mut encoder)?;
        encoder.finish()?;
    } else {
        write_text(recording, &mut out)?;
    }
    out.flush()
}

/// Writes `recording` as text.
pub fn write_text(recording: &Recording, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut out, recording)?;
    out.write_all(b"\n")?;
    // A buffer that is dropped keeps its errors to itself.
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::{read, testing};
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let recording = testing::container();
        for name in ["run.json", "run.json.zst"] {
            let path = directory.path().join(name);
            write(&recording, &path, WriteOptions::default()).unwrap();
            assert_eq!(read(&path).unwrap(), recording);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, PRIVATE);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file stays");
        let size = |name| directory.path().join(name).metadata().unwrap().len();
        assert!(size("run.json.zst") < size("run.json"));
    }
}
