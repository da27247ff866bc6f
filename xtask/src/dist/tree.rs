//! Files of a package, and archives of them: the same files give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Modes of directories and programs, and of everything else.
const PROGRAM: u32 = 0o755;
const DATA: u32 = 0o644;

/// One file.
#[derive(Clone)]
pub struct File {
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Files by their path, which is relative.
#[derive(Default)]
pub struct Tree(pub BTreeMap<String, File>);

impl Tree {
    pub fn program(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_owned(), File { mode: PROGRAM, content });
    }

    pub fn data(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_owned(), File { mode: DATA, content });
    }

    /// Every directory that holds something, outermost first.
    pub fn directories(&self) -> BTreeSet<&str> {
        let parents = |path| std::iter::successors(Some(path), |path: &&str| Some(path.rsplit_once('/')?.0));
        self.0.keys().flat_map(|path| parents(path).skip(1)).collect()
    }

    /// What it takes on a disk in KiB, by dpkg's arithmetic: files rounded up, 1 for a directory.
    pub fn installed_kib(&self) -> usize {
        let files: usize = self.0.values().map(|file| file.content.len().div_ceil(1024)).sum();
        files + self.directories().len() + 1
    }

    /// A tar archive: sorted, of root, all files of one time. `top` is put before every path.
    pub fn tar(&self, top: &str, time: u64) -> Result<Vec<u8>> {
        let directories = self.directories().into_iter().map(|path| (format!("{top}{path}/"), None));
        let files = self.0.iter().map(|(path, file)| (format!("{top}{path}"), Some(file)));
        let root = std::iter::once((top.to_owned(), None));
        // A directory before what it holds.
        let entries: BTreeMap<_, _> = root.chain(directories).chain(files).collect();
        let mut archive = Builder::new(Vec::new());
        for (path, file) in entries {
            let content = file.map(|file| &file.content[..]).unwrap_or_default();
            let mut header = Header::new_gnu();
            header.set_entry_type(if file.is_some() { EntryType::Regular } else { EntryType::Directory });
            header.set_mode(file.map_or(PROGRAM, |file| file.mode));
            header.set_size(content.len() as u64);
            header.set_mtime(time);
            (header.set_uid(0), header.set_gid(0));
            header.set_username("root").and_then(|()| header.set_groupname("root")).context("tar header")?;
            set_path(&mut header, &path)?;
            header.set_cksum();
            archive.append(&header, content).with_context(|| format!("cannot archive {path}"))?;
        }
        archive.into_inner().context("cannot finish an archive")
    }
}

/// The path as it is: the crate would take the leading `./` away, which dpkg wants.
fn set_path(header: &mut Header, path: &str) -> Result<()> {
    let field = &mut header.as_old_mut().name;
    let room = field.get_mut(..path.len()).with_context(|| format!("{path} is too long for an archive"))?;
    room.copy_from_slice(path.as_bytes());
    Ok(())
}

/// Compresses; without name and time, which would differ.
pub fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content).and_then(|()| encoder.finish()).context("cannot compress")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.data("usr/share/doc/p/b", b"text".to_vec());
        tree.program("usr/bin/p", vec![0; 1025]);
        tree.data("usr/share/doc/p/a", Vec::new());
        tree
    }

    #[test]
    fn directories_are_those_that_hold_something() {
        let expected = ["usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/p"];
        assert_eq!(tree().directories().into_iter().collect::<Vec<_>>(), expected);
        // 2 + 1 + 0 for files, 5 directories and the root.
        assert_eq!(tree().installed_kib(), 9);
    }

    #[test]
    fn archives_are_sorted_and_of_root_and_of_one_time() {
        let bytes = tree().tar("./", 1_700_000_000).unwrap();
        assert_eq!(bytes, tree().tar("./", 1_700_000_000).unwrap());
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.username(), Ok(Some("root")));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            seen.push((String::from_utf8(entry.path_bytes().to_vec()).unwrap(), header.mode().unwrap()));
        }
        let expected = [
            ("./", PROGRAM),
            ("./usr/", PROGRAM),
            ("./usr/bin/", PROGRAM),
            ("./usr/bin/p", PROGRAM),
            ("./usr/share/", PROGRAM),
            ("./usr/share/doc/", PROGRAM),
            ("./usr/share/doc/p/", PROGRAM),
            ("./usr/share/doc/p/a", DATA),
            ("./usr/share/doc/p/b", DATA),
        ];
        assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn paths_that_do_not_fit_are_an_error() {
        let mut tree = Tree::default();
        tree.data(&"x".repeat(101), Vec::new());
        assert!(tree.tar("./", 0).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn compressing_loses_nothing_and_adds_no_time() {
        let compressed = gzip(b"text").unwrap();
        assert_eq!(compressed, gzip(b"text").unwrap());
        assert_eq!(compressed[4..8], [0; 4], "the time field");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }
}
