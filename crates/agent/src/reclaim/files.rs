//! Clean page cache of named files. The kernel leaves what is dirty, and what a process has mapped in (mm/truncate.c
//! mapping_evict_folio).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use super::{
    Wanted,
    holders::Holders,
    step::{Kept, Kind, Outcome, Step},
    walk::{self, LeftOut, Seen},
};
use crate::source::cache::{file_system, in_cache};
use spark_trace_recording::units::{count, unsigned};

/// Processes that are named.
const NAMED: usize = 3;

/// What is below a path.
#[derive(Debug, Default)]
struct Found {
    clean: u64,
    unwritten: u64,
    /// Files of which the kernel does not count dirty pages.
    uncounted: u64,
    mapped: u64,
    mapped_by: BTreeSet<u32>,
    in_memory: u64,
    failed: u64,
}

/// What a file has, and whether it is left alone.
enum One {
    /// Bytes cached, and bytes of them that are not written.
    Free {
        bytes: u64,
        unwritten: Option<u64>,
    },
    Mapped {
        bytes: u64,
        by: BTreeSet<u32>,
    },
    /// Its pages are the only copy: tmpfs.
    InMemory {
        bytes: u64,
    },
}

fn look(file: &File, holders: &Holders) -> io::Result<One> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(One::Free { bytes: 0, unwritten: Some(0) });
    }
    let cached = in_cache(file, length)?;
    if IN_MEMORY.contains(&file_system(file)?) {
        return Ok(One::InMemory { bytes: cached.bytes });
    }
    let by = if cached.bytes > 0 { holders.of(file)? } else { BTreeSet::new() };
    Ok(if by.is_empty() {
        One::Free { bytes: cached.bytes, unwritten: cached.unwritten }
    } else {
        One::Mapped { bytes: cached.bytes, by }
    })
}

/// What a path would give back. What is in `seen` was counted before.
pub(super) fn expect(path: &Path, wanted: &Wanted, seen: &mut Seen) -> Step {
    let mut step = Step::of_path(Kind::Files, path.to_owned());
    if let Some(why) = Holders::blind().filter(|_| !wanted.mapped) {
        return step.refused(why);
    }
    let holders = Holders::read();
    let mut found = Found::default();
    let walked = walk::files(path, seen, &mut |_, file| match look(&file, &holders) {
        Ok(One::Free { bytes, unwritten }) => {
            let stays = if wanted.write_back { 0 } else { unwritten.unwrap_or(0).min(bytes) };
            found.clean += bytes - stays;
            found.unwritten += stays;
            found.uncounted += u64::from(unwritten.is_none() && bytes > 0 && !wanted.write_back);
        }
        Ok(One::Mapped { bytes, by }) => {
            found.mapped += bytes;
            found.mapped_by.extend(by);
        }
        Ok(One::InMemory { bytes }) => found.in_memory += bytes,
        Err(_) => found.failed += 1,
    });
    let left_out = match walked {
        Err(error) => return step.refused(format!("cannot be read: {error}")),
        Ok(LeftOut { over: true, .. }) => {
            let most = walk::MOST_FILES;
            return step.refused(format!("there are more than {most} files: name directories below it"));
        }
        Ok(left_out) => left_out,
    };
    step.keep(
        found.unwritten,
        "not yet on the disk: the step makes the kernel begin to write it; --write-back waits for that",
    );
    step.keep(found.in_memory, "files of a file system in memory: their pages are the only copy");
    step.expected_bytes = Some(found.clean);
    if found.mapped > 0 {
        let processes = named(&found.mapped_by);
        if wanted.mapped {
            // The kernel keeps the pages that are mapped in: how many these are is not known before.
            let most = unsigned(found.mapped);
            step.notes.push(format!(
                "up to {most} more, of files that are mapped by {processes}: what is mapped in stays"
            ));
        } else {
            step.keep(
                found.mapped,
                format!("mapped by {processes}: --mapped drops what of it is not mapped in"),
            );
        }
    }
    if found.uncounted > 0 {
        step.notes.push(format!(
            "of {} the kernel does not count dirty pages, which stay: at most this much is given back",
            files(found.uncounted)
        ));
    }
    if holders.unread > 0 {
        let processes = count(holders.unread, "process", "processes");
        step.notes.push(format!(
            "the mappings of {processes} could not be read: what they have mapped is not left out"
        ));
    }
    step.notes.extend(left_out_notes(left_out, found.failed));
    step
}

/// What a walk did not look at.
fn left_out_notes(left_out: LeftOut, failed: u64) -> impl Iterator<Item = String> {
    let unreadable = left_out.unreadable + failed;
    let deepest = walk::DEEPEST;
    let notes = [
        (unreadable, format!("{} could not be read", files(unreadable))),
        (left_out.elsewhere, format!("{} below it are other mounts, and left out", left_out.elsewhere)),
        (
            left_out.too_deep,
            format!("{} directories are more than {deepest} deep, and left out", left_out.too_deep),
        ),
    ];
    notes.into_iter().filter(|(number, _)| *number > 0).map(|(_, note)| note)
}

fn files(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "file", "files")
}

/// Gives it back. Each file is looked at again: what was mapped since stays.
pub(super) fn apply(path: &Path, wanted: &Wanted) -> Outcome {
    let mut holders = Holders::read();
    let (mut before, mut after, mut mapped) = (0, 0, 0);
    let mut failed: Option<String> = None;
    let walked = walk::files(path, &mut Seen::new(), &mut |name, file| {
        if holders.are_old() {
            holders = Holders::read();
        }
        let dropped = look(&file, &holders).and_then(|one| {
            let bytes = match one {
                One::Free { bytes, .. } => bytes,
                One::Mapped { bytes, .. } if wanted.mapped => bytes,
                One::Mapped { bytes, .. } => {
                    mapped += bytes;
                    return Ok(());
                }
                One::InMemory { .. } => return Ok(()),
            };
            if bytes == 0 {
                return Ok(());
            }
            drop_pages(&file, wanted.write_back)?;
            before += bytes;
            after += in_cache(&file, file.metadata()?.len())?.bytes;
            Ok(())
        });
        if let Err(error) = dropped {
            failed.get_or_insert_with(|| format!("{}: {error}", name.display()));
        }
    });
    let mut outcome = Outcome::bytes(before, after);
    if mapped > 0 {
        outcome.kept.push(Kept { bytes: mapped, why: "mapped when the step was taken".to_owned() });
    }
    let left_out =
        walked.map(|left_out| left_out_notes(LeftOut { elsewhere: 0, too_deep: 0, ..left_out }, 0).next());
    match left_out.map_err(|error| error.to_string()) {
        Err(error) => outcome.error(error),
        Ok(unreadable) => match failed.or(unreadable) {
            Some(error) => outcome.error(error),
            None => outcome,
        },
    }
}

fn drop_pages(file: &File, write_back: bool) -> io::Result<()> {
    if write_back {
        file.sync_data()?;
    }
    // SAFETY: a plain system call on a descriptor that is open; a length of 0 reaches to the end.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Kinds of file systems that have no other place for the pages (include/uapi/linux/magic.h).
const RAMFS: libc::__fsword_t = 0x8584_58f6;
const IN_MEMORY: [libc::__fsword_t; 3] = [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC, RAMFS];

fn named(pids: &BTreeSet<u32>) -> String {
    let name = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{} ({pid})", comm.trim_end())
    };
    let mut names: Vec<_> = pids.iter().take(NAMED).map(name).collect();
    if pids.len() > NAMED {
        names.push(count(pids.len() - NAMED, "other", "others"));
    }
    names.join(", ")
}
