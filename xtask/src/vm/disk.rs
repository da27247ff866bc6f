//! What a virtual machine sees: an initramfs that finds the disk, and the disk with programs and tests on it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::kernel::Unpacked;
use super::packages::{self, Suite};
use crate::{arch::Arch, process};

/// First program in the initramfs, and on the disk.
const FIRST: &str = include_str!("guest/first.sh");
const INIT: &str = include_str!("guest/init.sh");

/// By suite: a shell and tools, with what the demo's sandbox and the package manager take; Docker, with the libraries
/// that its programs are linked to; the C library, with the ldconfig that dpkg wants. That of the newest Debian runs what
/// older systems have linked.
const PACKAGES: &[(&str, &[&str])] = &[
    ("bookworm", &["busybox-static", "dash"]),
    ("bookworm", &["util-linux", "dpkg", "tar", "libacl1", "libbz2-1.0", "libmd0", "zlib1g"]),
    (
        "bookworm",
        &["docker.io", "containerd", "runc", "tini", "libdevmapper1.02.1", "libseccomp2", "libudev1"],
    ),
    (
        "bookworm",
        &["libsystemd0", "libcap2", "libcap-ng0", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5"],
    ),
    (
        "bookworm",
        &["libzstd1", "libselinux1", "libpcre2-8-0", "libblkid1", "libmount1", "libsmartcols1", "libtinfo6"],
    ),
    ("trixie", &["libc6", "libc-bin", "libgcc-s1"]),
];

const DIRECTORIES: &[&str] = &[
    "dev", "etc", "guest", "proc", "results", "root", "run", "sys", "tmp", "usr/bin", "usr/lib", "usr/sbin",
    "var/lib", "var/tmp",
];

/// Room on the disk besides what is put there.
const ROOM: u64 = 3 << 30;

/// Files of a virtual machine below the cache.
pub struct Base {
    pub tree: PathBuf,
}

impl Base {
    /// What every machine of an architecture has, without our programs.
    pub fn make(cache: &Path, arch: Arch) -> Result<Self> {
        // Another list of packages makes another base.
        let mut hasher = DefaultHasher::new();
        (PACKAGES, DIRECTORIES).hash(&mut hasher);
        let tree = cache.join("base").join(format!("{}-{:x}", arch.names().debian, hasher.finish()));
        let done = tree.join("guest/complete");
        if !done.is_file() {
            let _ = fs::remove_dir_all(&tree);
            make_dirs(&tree, DIRECTORIES)?;
            let mut installed = String::new();
            for (suite, packages) in PACKAGES {
                let suite = Suite::open(cache, suite, arch)?;
                installed.push_str(&packages::installed(&suite.unpack(packages, &tree)?)?);
            }
            merge_usr(&tree)?;
            // So that the guest's dpkg knows what is there.
            make_dirs(&tree, &["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"])?;
            let status = tree.join("var/lib/dpkg/status");
            fs::write(&status, installed).with_context(|| format!("cannot write {}", status.display()))?;
            fs::remove_dir_all(tree.join("usr/share")).context("cannot remove documentation")?;
            fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
        }
        Ok(Self { tree })
    }

    /// A compressed archive as the kernel unpacks it: what loads modules, mounts the disk and goes on from there.
    /// `extra` are modules for the tests: they are not loaded, and lie in /run/modules later.
    pub fn initramfs(&self, kernel: &Unpacked, extra: &[PathBuf], to: &Path) -> Result<()> {
        let busybox = self.tree.join("bin/busybox");
        let mut files = vec![
            Entry::dir("bin"),
            Entry::dir("dev"),
            Entry::dir("disk"),
            Entry::dir("extra"),
            Entry::dir("modules"),
            Entry::dir("proc"),
            Entry::dir("sys"),
            Entry::file("init", FIRST.as_bytes().to_vec()),
            Entry::file("bin/busybox", read(&busybox)?),
        ];
        let mut order = String::new();
        for module in &kernel.modules {
            let name = name_of(module);
            order.push_str(&format!("{name}\n"));
            files.push(Entry::file(&format!("modules/{name}"), read(module)?));
        }
        files.push(Entry::file("order", order.into_bytes()));
        for module in extra {
            files.push(Entry::file(&format!("extra/{}", name_of(module)), read(module)?));
        }
        let mut out = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
        for (inode, entry) in (1..).zip(&files) {
            let builder = cpio::NewcBuilder::new(&entry.name).ino(inode).mode(entry.mode);
            let mut writer = builder.write(&mut out, u32::try_from(entry.bytes.len())?);
            writer
                .write_all(&entry.bytes)
                .and_then(|()| writer.finish().map(drop))
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
        cpio::newc::trailer(&mut out).map(drop).with_context(|| format!("cannot write {}", to.display()))
    }

    /// A disk with the base and what `fill` adds to it in /guest.
    pub fn disk(&self, image: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let tree = image.with_extension("tree");
        let _ = fs::remove_dir_all(&tree);
        let mut copy = Command::new("cp");
        process::output(copy.args(["--archive", "--link"]).arg(&self.tree).arg(&tree), "copying the base")?;
        let guest = tree.join("guest");
        let init = guest.join("init");
        fs::write(&init, INIT)
            .and_then(|()| fs::set_permissions(&init, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", init.display()))?;
        fill(&guest)?;
        let size = tree_size(&tree)? + ROOM;
        let _ = fs::remove_file(image);
        File::create(image)
            .and_then(|file| file.set_len(size))
            .with_context(|| format!("cannot create {}", image.display()))?;
        let mut make = Command::new("mke2fs");
        // No journal and no checksums: the disk lives for one run, and not every kernel has what they take.
        make.args([
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal,^metadata_csum",
            "-m",
            "0",
            "-E",
            "root_owner=0:0",
            "-d",
        ]);
        process::output(make.arg(&tree).arg(image), "making the disk")?;
        fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))
    }
}

/// A file or directory in the initramfs.
struct Entry {
    name: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Entry {
    fn dir(name: &str) -> Self {
        Self { name: name.to_owned(), mode: 0o040_755, bytes: Vec::new() }
    }

    fn file(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), mode: 0o100_755, bytes }
    }
}

fn make_dirs(tree: &Path, names: &[&str]) -> Result<()> {
    for dir in names.iter().map(|name| tree.join(name)) {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    Ok(())
}

/// Puts everything below /usr, as Debian's newer packages expect it: older ones have some of it elsewhere.
fn merge_usr(tree: &Path) -> Result<()> {
    for name in ["bin", "lib", "lib64", "sbin"] {
        let (from, to) = (tree.join(name), tree.join("usr").join(name));
        make_dirs(tree, &[&format!("usr/{name}")])?;
        if from.is_dir() {
            let mut copy = Command::new("cp");
            process::output(copy.arg("--archive").arg(from.join(".")).arg(&to), "moving files below /usr")?;
            fs::remove_dir_all(&from).with_context(|| format!("cannot remove {}", from.display()))?;
        }
        symlink(Path::new("usr").join(name), &from)
            .with_context(|| format!("cannot create {}", from.display()))?;
    }
    let shell = tree.join("bin/sh");
    let _ = fs::remove_file(&shell);
    symlink("dash", &shell).with_context(|| format!("cannot create {}", shell.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn tree_size(dir: &Path) -> Result<u64> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    entries.flatten().try_fold(0, |sum, entry| {
        let path = entry.path();
        let meta =
            fs::symlink_metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        // What a file takes in whole blocks, and a little for its entry.
        Ok(sum + if meta.is_dir() { tree_size(&path)? } else { meta.len() + 4096 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initramfs_holds_modules_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/busybox"), "shell").unwrap();
        let modules = ["b.ko", "a.ko"].map(|name| dir.path().join(name));
        modules.iter().for_each(|path| fs::write(path, "module").unwrap());
        let kernel = Unpacked { package: String::new(), image: PathBuf::new(), modules: modules.to_vec() };
        let archive = dir.path().join("initramfs");
        Base { tree }.initramfs(&kernel, &modules[1..], &archive).unwrap();
        let mut file = File::open(&archive).unwrap();
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(&mut file).unwrap();
            let name = reader.entry().name().to_owned();
            if reader.entry().is_trailer() {
                break;
            }
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut text).unwrap();
            seen.push((name, text));
            reader.finish().unwrap();
        }
        let text = |wanted: &str| seen.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.clone());
        assert_eq!(text("order").unwrap(), b"b.ko\na.ko\n");
        assert_eq!(text("modules/b.ko").unwrap(), b"module");
        assert_eq!(text("extra/a.ko").unwrap(), b"module");
        assert!(text("init").unwrap().starts_with(b"#!"));
    }
}
