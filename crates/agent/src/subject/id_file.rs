//! The file that an engine's client writes a new container's id to: in a directory of ours that only the client's user may
//! look into.

use std::{fs::File, io::Read, path::PathBuf, sync::Arc};

use crate::now_ns;
use spark_trace_host::output_file::{Place, WriteOptions};

const NAME: &str = "id";
/// Characters of a container's id.
const ID_LEN: usize = 64;
/// More than an id with a line feed has.
const LONGEST: u64 = 128;

#[derive(Debug)]
pub struct IdFile {
    directory: Place,
    file: Place,
}

impl IdFile {
    /// `owner`: whom the client runs as, if not as this process.
    pub fn new(owner: Option<(u32, u32)>) -> std::io::Result<Self> {
        let name = format!("spark-trace-{}-{}", std::process::id(), now_ns());
        let directory = Place::new(&std::env::temp_dir().join(name)).map_err(std::io::Error::other)?;
        let inside: Arc<File> =
            Arc::new(directory.make_directory(0o700, WriteOptions { force: false, owner })?);
        let file = Place::inside(&inside, &directory.path().join(NAME)).map_err(std::io::Error::other)?;
        Ok(Self { directory, file })
    }

    /// For the client: it must not be there yet.
    pub fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// The id, once it is whole. The client may put anything there: only a regular file is read, and little of it.
    pub fn id(&self) -> Option<String> {
        let file = self.file.open(libc::O_RDONLY | libc::O_NONBLOCK).ok()?;
        let about = file.metadata().ok()?;
        if !about.is_file() || about.len() > LONGEST {
            return None;
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        let id = text.trim();
        (id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    }

    pub fn remove(&self) {
        // It is not there where the container was never created.
        let _ = self.file.remove();
        let _ = self.directory.remove_directory();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn only_an_id_in_a_plain_file_counts() {
        let id_file = IdFile::new(None).unwrap();
        let path = id_file.path();
        let folder = path.parent().unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(id_file.id(), None);
        let id = "0123456789abcdef".repeat(4);
        fs::write(&path, format!("{id}\n")).unwrap();
        assert_eq!(id_file.id(), Some(id.clone()));
        for text in
            [&id[..63], &format!("{id}0"), "", &"x".repeat(64), &format!("{id}{}", " ".repeat(1 << 20))]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(id_file.id(), None, "{}", text.len());
        }
        // What would be read without end, or never.
        let replace = |make: &dyn Fn()| {
            fs::remove_file(&path).unwrap();
            make();
            assert_eq!(id_file.id(), None);
        };
        fs::write(folder.join("other"), &id).unwrap();
        replace(&|| symlink("other", &path).unwrap());
        replace(&|| symlink("/dev/zero", &path).unwrap());
        let mkfifo = || assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        replace(&mkfifo);
        fs::remove_file(folder.join("other")).unwrap();
        id_file.remove();
        assert!(!folder.exists());
    }
}
