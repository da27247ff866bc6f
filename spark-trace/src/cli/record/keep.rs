//! Writing a recording where there may be no room for it.

use std::{
    io,
    path::{Path, PathBuf},
};

use spark_trace_recording::{Recording, WriteError, WriteOptions, claim::Claim, write::Packing};

/// Writes a recording, and where it does not fit what fits of it: compressed, beside the name that was wanted. A journal
/// that was cut is no copy of it, and makes room first. Says where the recording is.
pub fn what_fits(
    recording: &Recording,
    (output, claim): (&Path, &Claim),
    journal_is_cut: bool,
    write: WriteOptions,
) -> Result<PathBuf, WriteError> {
    let as_wanted = || claim.write(recording, write).map(|()| output.to_path_buf());
    let mut written = as_wanted();
    if journal_is_cut && written.as_ref().is_err_and(lacks_room) {
        // It stays open, so that removing it would make no room.
        let _ = claim.file.set_len(0);
        written = as_wanted();
    }
    let error = match written {
        Err(error) if lacks_room(&error) => error,
        written => return written,
    };
    let Some(packed) = packed_name(output) else { return Err(error) };
    let pack = |packing| claim.write_beside(&packed, recording, write, packing);
    let written = pack(Packing::Quick).or_else(|failed| {
        if !lacks_room(&failed) {
            return Err(failed);
        }
        eprintln!("spark-trace: there is little room: the recording is packed as small as it can be, which takes up to minutes");
        pack(Packing::Smallest)
    });
    // What is said is why it does not fit, not what became of this try.
    written.map(|()| packed.clone()).map_err(|_| error)
}

fn lacks_room(error: &WriteError) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, WriteError::Io { source, .. } if matches!(source.kind(), FileTooLarge | QuotaExceeded | StorageFull))
}

/// `None` where it is compressed already.
fn packed_name(output: &Path) -> Option<PathBuf> {
    let name = output.file_name().filter(|_| output.extension().is_none_or(|end| end != "zst"))?;
    let mut packed = name.to_os_string();
    packed.push(".zst");
    Some(output.with_file_name(packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compressed_once() {
        assert_eq!(packed_name(Path::new("/x/run.json")), Some(PathBuf::from("/x/run.json.zst")));
        assert_eq!(packed_name(Path::new("run.json.zst")), None);
    }

    #[test]
    fn only_want_of_room_is_a_reason_to_compress() {
        let error =
            |kind: io::ErrorKind| WriteError::Io { path: "x".into(), doing: "write", source: kind.into() };
        assert!(
            lacks_room(&error(io::ErrorKind::StorageFull)) && lacks_room(&error(io::ErrorKind::FileTooLarge))
        );
        assert!(!lacks_room(&error(io::ErrorKind::PermissionDenied)));
    }
}
