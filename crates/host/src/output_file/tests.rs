use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const PLAIN: WriteOptions = WriteOptions { force: false, owner: None };
const FORCE: WriteOptions = WriteOptions { force: true, owner: None };

fn write(bytes: &[u8], path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    Place::new(path)?.write(options, PRIVATE, |mut file| file.write_all(bytes))
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn an_existing_file_stays_unless_forced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.html");
    write(b"one", &path, PLAIN).unwrap();
    assert!(matches!(write(b"two", &path, PLAIN), Err(WriteError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"one");
    write(b"three", &path, FORCE).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"three");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, PRIVATE);
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn a_file_that_appears_meanwhile_stays_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let place = Place::new(&path).unwrap();
    let written = place.write(PLAIN, PRIVATE, |_| fs::write(&path, "theirs"));
    assert!(matches!(written, Err(WriteError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"theirs");
    // With force it is replaced, but never by what is no file.
    let swapped = place.write(FORCE, PRIVATE, |_| {
        fs::remove_file(&path)?;
        symlink("/dev/null", &path)
    });
    assert!(matches!(swapped, Err(WriteError::NotAFile { .. })), "{swapped:?}");
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("/dev/null"));
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn a_directory_that_is_replaced_by_a_link_does_not_lead_elsewhere() {
    let top = tempfile::tempdir().unwrap();
    let inside = |name: &str| top.path().join(name);
    for name in ["out", "private"] {
        fs::create_dir(inside(name)).unwrap();
    }
    fs::write(inside("private/run.json"), "theirs").unwrap();
    let place = Place::new(&inside("out/run.json")).unwrap();
    fs::rename(inside("out"), inside("moved")).unwrap();
    symlink(inside("private"), inside("out")).unwrap();
    place.write(FORCE, PRIVATE, |mut file| file.write_all(b"ours")).unwrap();
    assert_eq!(fs::read(inside("private/run.json")).unwrap(), b"theirs");
    assert_eq!(fs::read(inside("moved/run.json")).unwrap(), b"ours");
    place.remove().unwrap();
    assert_eq!((entries(&inside("private")), entries(&inside("moved"))), (1, 0));
}

#[test]
fn what_is_no_file_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let inside = |name: &str| directory.path().join(name);
    fs::write(inside("other"), "theirs").unwrap();
    symlink(inside("other"), inside("link")).unwrap();
    symlink(inside("none"), inside("dangling")).unwrap();
    fs::create_dir(inside("directory")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(inside("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
    let names = [
        ("link", "link"),
        ("dangling", "link"),
        ("directory", "directory"),
        ("fifo", "FIFO"),
        ("socket", "socket"),
    ];
    let paths = names.map(|(name, kind)| (inside(name), kind));
    for (path, kind) in paths
        .iter()
        .map(|(path, kind)| (path.as_path(), *kind))
        .chain([(Path::new("/dev/null"), "device"), (Path::new("/dev/stdout"), "link")])
    {
        let before = path.symlink_metadata().unwrap().file_type();
        for options in [PLAIN, FORCE] {
            let said = write(b"x", path, options).unwrap_err().to_string();
            assert!(said.contains(kind), "{}: {said}", path.display());
        }
        assert_eq!(path.symlink_metadata().unwrap().file_type(), before);
    }
    assert_eq!(fs::read(inside("other")).unwrap(), b"theirs");
    assert_eq!(entries(directory.path()), names.len() + 1);
}

#[test]
fn nothing_has_a_name_before_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let place = Place::new(&path).unwrap();
    let mut seen = None;
    let failed = place.write(PLAIN, PRIVATE, |mut file| {
        file.write_all(b"half")?;
        seen = Some(entries(directory.path()));
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(failed.unwrap_err().to_string().contains("run.json"));
    // What a process that is killed here would leave. Without O_TMPFILE there is a name, and it is removed.
    let has_unnamed = place.open_as(OsStr::new("."), libc::O_TMPFILE | libc::O_RDWR, PRIVATE).is_ok();
    assert_eq!(seen, Some(usize::from(!has_unnamed)));
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn a_file_system_without_unnamed_files_does_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(&directory.path().join("run.json")).unwrap();
    // Left by another process of this number.
    fs::write(directory.path().join(temporary_name(place.name())), "left").unwrap();
    for (text, options) in [("one", PLAIN), ("two", FORCE)] {
        let temporary = Temporary::named(&place, PRIVATE).unwrap();
        (&temporary.file).write_all(text.as_bytes()).unwrap();
        temporary.take_name(options).unwrap();
        assert_eq!(fs::read_to_string(place.path()).unwrap(), text);
        assert_eq!(entries(directory.path()), 1);
    }
    let temporary = Temporary::named(&place, PRIVATE).unwrap();
    assert!(matches!(temporary.take_name(PLAIN), Err(WriteError::Exists { .. })));
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn what_is_renamed_away_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::new(&directory.path().join("x.partial")).unwrap();
    for (text, name) in [("one", "x.partial.1"), ("two", "x.partial.2")] {
        fs::write(place.path(), text).unwrap();
        assert_eq!(place.rename_away().unwrap(), directory.path().join(name));
        assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), text);
    }
    assert_eq!(entries(directory.path()), 2);
}

#[test]
fn a_name_may_be_as_long_as_names_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(LONGEST_NAME));
    write(b"x", &path, PLAIN).unwrap();
    write(b"y", &path, FORCE).unwrap();
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn the_owner_can_be_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.json");
    let me = directory.path().metadata().unwrap();
    write(b"x", &path, WriteOptions { force: false, owner: Some((me.uid(), me.gid())) }).unwrap();
    assert_eq!(path.metadata().unwrap().uid(), me.uid());
}

#[test]
fn a_missing_directory_is_an_error_with_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let error = write(b"x", &directory.path().join("none/run.json"), PLAIN).unwrap_err();
    assert!(error.to_string().contains("none/run.json"));
}
