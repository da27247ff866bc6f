//! The folder of a service: its recent minutes, recordings of kills, and a lock that says that it runs.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use spark_trace_host::output_file::{Place, WriteError, WriteOptions, open_directory};

pub const DEFAULT_STATE: &str = "/var/lib/spark-trace";

const RECENT: &str = "recent.json.zst";
const LOCK: &str = "serve.lock";
const KILL: (&str, &str) = ("oom-", ".json.zst");
/// Made by whoever wants [`RECENT`] now; the service removes it.
const WANTED: &str = "wanted";
/// Rights of others to the folder.
const OTHERS: u32 = 0o077;
/// What files are called while they are written.
const TEMPORARY: &str = ".tmp";

#[derive(Debug, Error)]
pub enum StateError {
    #[error("cannot use the folder {}: {cause}", path.display())]
    Folder { path: PathBuf, cause: io::Error },
    #[error("{}: belongs to user {uid}, who could replace the recordings: choose another folder", path.display())]
    Foreign { path: PathBuf, uid: u32 },
    #[error(
        "{}: other users can use it (mode {mode:03o}), and recordings have names of all processes and files: run `chmod 700` on it",
        path.display()
    )]
    Shared { path: PathBuf, mode: u32 },
    #[error("another `spark-trace serve` keeps its files in {}: end it, or choose another folder with --state", path.display())]
    Taken { path: PathBuf },
}

/// Held for as long as the service runs; the kernel lets go of it when it is killed.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    folder: Arc<File>,
    _lock: File,
}

impl State {
    /// Makes the folder where it is missing, for root alone: recordings name processes and files of everyone.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let failed = |cause| StateError::Folder { path: dir.into(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let folder = private_folder(dir)?;
        let lock = lock_file(&folder, dir, true).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::Taken { path: dir.into() }),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let state = Self { dir: dir.into(), folder, _lock: lock };
        // Left by a service that was killed while it wrote.
        state.remove(|name| {
            name.ends_with(TEMPORARY) && (name.starts_with(RECENT) || name.starts_with(KILL.0))
        });
        state.take_wish();
        Ok(state)
    }

    pub fn recent(&self) -> Result<Place, WriteError> {
        Place::inside(&self.folder, &recent(&self.dir))
    }

    pub fn of_kill(&self, time: &str) -> Result<Place, WriteError> {
        Place::inside(&self.folder, &self.dir.join(format!("{}{time}{}", KILL.0, KILL.1)))
    }

    /// Whether the file was requested since the last call.
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

/// Opens the folder, if it is this user's or root's, and for nobody else.
fn private_folder(dir: &Path) -> Result<Arc<File>, StateError> {
    let failed = |cause| StateError::Folder { path: dir.into(), cause };
    let folder = open_directory(dir).map_err(failed)?;
    let about = folder.metadata().map_err(failed)?;
    // SAFETY: cannot fail.
    let own = unsafe { libc::geteuid() };
    if about.uid() != own && about.uid() != 0 {
        return Err(StateError::Foreign { path: dir.into(), uid: about.uid() });
    }
    if about.mode() & OTHERS != 0 {
        return Err(StateError::Shared { path: dir.into(), mode: about.mode() & 0o777 });
    }
    Ok(Arc::new(folder))
}

fn inside(folder: &Arc<File>, dir: &Path, name: &str) -> io::Result<Place> {
    Place::inside(folder, &dir.join(name)).map_err(io::Error::other)
}

fn lock_file(folder: &Arc<File>, dir: &Path, create: bool) -> io::Result<File> {
    let place = inside(folder, dir, LOCK)?;
    let open = || place.open(libc::O_RDWR | libc::O_NONBLOCK);
    match open() {
        Err(missing) if create && missing.kind() == io::ErrorKind::NotFound => {
            match place.create_new(0, WriteOptions::default()) {
                // Another service has just made it.
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => open(),
                made => made,
            }
        }
        opened => opened,
    }
}

/// Where the recent minutes of a service are.
pub fn recent(dir: &Path) -> PathBuf {
    dir.join(RECENT)
}

/// Whether a service uses the folder. What lies in a folder of somebody else's is not looked at.
pub fn is_served(dir: &Path) -> Result<bool, StateError> {
    let failed = |cause| StateError::Folder { path: dir.into(), cause };
    let folder = match private_folder(dir) {
        Err(StateError::Folder { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        folder => folder?,
    };
    match lock_file(&folder, dir, false) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        },
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(failed(cause)),
    }
}

/// Requests the file of the service as it is now.
pub fn wish(dir: &Path) -> io::Result<()> {
    let folder = private_folder(dir).map_err(io::Error::other)?;
    match inside(&folder, dir, WANTED)?.create_new(0, WriteOptions::default()) {
        Err(wish) if wish.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

pub fn take_wish(dir: &Path) -> bool {
    fs::remove_file(dir.join(WANTED)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn private() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        dir
    }

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
        let dir = private();
        let state = State::open(dir.path()).unwrap();
        assert!(!state.take_wish());
        wish(dir.path()).unwrap();
        wish(dir.path()).unwrap();
        assert!(state.take_wish());
        assert!(!state.take_wish());
    }

    #[test]
    fn the_oldest_recordings_of_kills_go_and_nothing_else() {
        let dir = private();
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
        let dir = private();
        let left = ["recent.json.zst.17.tmp", "oom-20260101T000000Z.json.zst.17.tmp"];
        for name in left.iter().chain(&["mine.tmp"]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let state = State::open(dir.path()).unwrap();
        assert!(left.iter().all(|name| !dir.path().join(name).exists()));
        assert!(dir.path().join("mine.tmp").exists());
        assert_eq!(state.recent().unwrap().path(), recent(dir.path()));
    }

    #[test]
    fn a_folder_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(State::open(&path).unwrap());
        for mode in [0o777, 0o755, 0o710, 0o701] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = State::open(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 700"), "{mode:o}: {error}");
            assert!(is_served(&path).is_err() && wish(&path).is_err());
        }
    }

    #[test]
    fn links_in_the_folder_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("state"), dir.path().join("other"));
        drop(State::open(&path).unwrap());
        fs::write(&other, "theirs").unwrap();
        fs::remove_file(path.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&other, path.join(LOCK)).unwrap();
        assert!(matches!(State::open(&path), Err(StateError::Folder { .. })));
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
    }
}
