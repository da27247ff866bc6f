//! The folder of a service: its recent minutes, recordings of kills, and a lock that says that it runs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

pub const DEFAULT_STATE: &str = "/var/lib/spark-trace";

const RECENT: &str = "recent.json.zst";
const LOCK: &str = "serve.lock";
const KILL: (&str, &str) = ("oom-", ".json.zst");
/// Made by whoever wants [`RECENT`] now; the service removes it.
const WANTED: &str = "wanted";
/// What files are called while they are written.
const TEMPORARY: &str = ".tmp";

#[derive(Debug, Error)]
pub enum StateError {
    #[error("cannot use the folder {}: {cause}", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("another `spark-trace serve` keeps its files in {}: end it, or choose another folder with --state", path.display())]
    Taken { path: PathBuf },
}

/// Held for as long as the service runs; the kernel lets go of it when it is killed.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    _lock: File,
}

impl State {
    /// Makes the folder where it is missing, for root alone: recordings name processes and files of everyone.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let failed = |cause| StateError::Folder { path: dir.into(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = lock_file(dir, true).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Taken { path: dir.into() }),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let state = Self { dir: dir.into(), _lock: lock };
        // Left by a service that was killed while it wrote.
        state.remove(|name| {
            name.ends_with(TEMPORARY) && (name.starts_with(RECENT) || name.starts_with(KILL.0))
        });
        state.take_wish();
        Ok(state)
    }

    pub fn recent(&self) -> PathBuf {
        recent(&self.dir)
    }

    pub fn of_kill(&self, time: &str) -> PathBuf {
        self.dir.join(format!("{}{time}{}", KILL.0, KILL.1))
    }

    /// Whether somebody has asked for the file since this was asked last.
    pub fn take_wish(&self) -> bool {
        take_wish(&self.dir)
    }

    /// Leaves the latest recordings of kills.
    pub fn prune(&self, keep: usize) {
        let mut kills = names(&self.dir).filter(|name| is_of_kill(name)).collect::<Vec<_>>();
        // Names are times.
        kills.sort_unstable();
        let old = &kills[..kills.len().saturating_sub(keep)];
        self.remove(|name| old.iter().any(|old| old == name));
    }

    fn remove(&self, unwanted: impl Fn(&str) -> bool) {
        for name in names(&self.dir).filter(|name| unwanted(name)) {
            // It is tried again the next time.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// `oom-20261121T093000Z.json.zst`, and nothing that somebody has put beside it.
fn is_of_kill(name: &str) -> bool {
    let time = name.strip_prefix(KILL.0).and_then(|name| name.strip_suffix(KILL.1));
    time.is_some_and(|time| {
        time.len() == 16 && time.bytes().all(|byte| byte.is_ascii_digit() || b"TZ".contains(&byte))
    })
}

fn lock_file(dir: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join(LOCK))
}

/// Where the recent minutes of a service are.
pub fn recent(dir: &Path) -> PathBuf {
    dir.join(RECENT)
}

/// Whether a service uses the folder.
pub fn is_served(dir: &Path) -> io::Result<bool> {
    match lock_file(dir, false) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(cause)) => Err(cause),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Asks the service for the file as it is now.
pub fn wish(dir: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(dir.join(WANTED))
        .map(drop)
}

pub fn take_wish(dir: &Path) -> bool {
    fs::remove_file(dir.join(WANTED)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_for_one_service_and_for_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(!is_served(&path).unwrap());
        let state = State::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(is_served(&path).unwrap());
        assert!(matches!(State::open(&path), Err(StateError::Taken { .. })));
        drop(state);
        assert!(!is_served(&path).unwrap());
        State::open(&path).unwrap();
    }

    #[test]
    fn a_wish_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        assert!(!state.take_wish());
        wish(dir.path()).unwrap();
        wish(dir.path()).unwrap();
        assert!(state.take_wish());
        assert!(!state.take_wish());
    }

    #[test]
    fn the_oldest_recordings_of_kills_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let others = ["recent.json.zst", "oom-mine.json.zst", "oom-20260101T000000Z.json", "notes"];
        let kills: Vec<_> = (1..=12).map(|day| format!("oom-202601{day:02}T000000Z.json.zst")).collect();
        for name in others.iter().copied().chain(kills.iter().map(String::as_str)) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        for keep in [20, 10, 1, 0] {
            state.prune(keep);
            let mut left: Vec<_> = names(dir.path()).filter(|name| is_of_kill(name)).collect();
            left.sort();
            assert_eq!(left, kills[kills.len() - keep.min(kills.len())..], "{keep}");
        }
        assert!(others.iter().all(|name| dir.path().join(name).exists()));
    }

    #[test]
    fn what_a_killed_service_had_begun_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let left = ["recent.json.zst.17.tmp", "oom-20260101T000000Z.json.zst.17.tmp"];
        for name in left.iter().chain(&["mine.tmp"]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        assert!(left.iter().all(|name| !dir.path().join(name).exists()));
        assert!(dir.path().join("mine.tmp").exists());
        assert_eq!(state.recent(), recent(dir.path()));
    }
}
