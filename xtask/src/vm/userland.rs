//! Programs of one Debian suite, for every machine that tests run on: QEMU, and what builds modules.
//!
//! They are unpacked with all that they depend on and run with their own loader and C library, so it does not matter
//! what this machine has installed, or how old that is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::packages::Suite;
use crate::arch::Arch;

/// QEMU 7 of the suite before it lost x86-64 guests to double faults once BPF programs attach.
const SUITE: &str = "trixie";

/// QEMU; pahole, which gives modules their BTF; libraries of the programs that kbuild runs.
const PACKAGES: &[&str] = &["qemu-system-x86", "qemu-system-arm", "pahole", "libelf1t64", "libssl3t64"];

/// Where they are.
pub struct Userland {
    root: PathBuf,
    libraries: PathBuf,
    loader: PathBuf,
}

impl Userland {
    /// Unpacked into the cache, if it is not there yet.
    pub fn unpack(cache: &Path) -> Result<Self> {
        let host = Arch::host()?;
        let root = cache.join(format!("userland-{SUITE}"));
        let libraries = root.join("usr/lib").join(host.names().gnu);
        let loader = libraries.join(match host {
            Arch::Amd64 => "ld-linux-x86-64.so.2",
            Arch::Arm64 => "ld-linux-aarch64.so.1",
        });
        let userland = Self { root, libraries, loader };
        // Another list of packages makes another userland.
        let list = PACKAGES.join(" ");
        let done = userland.root.join("complete");
        if !fs::read_to_string(&done).is_ok_and(|packages| packages == list) {
            let _ = fs::remove_dir_all(&userland.root);
            Suite::open(cache, SUITE, host)?.unpack_with_dependencies(PACKAGES, &userland.root)?;
            // kbuild takes a path, not a command line.
            userland.wrap(&userland.pahole())?;
            fs::write(&done, list).with_context(|| format!("cannot write {}", done.display()))?;
        }
        Ok(userland)
    }

    pub fn pahole(&self) -> PathBuf {
        self.root.join("usr/bin/pahole")
    }

    /// QEMU for an architecture.
    pub fn qemu(&self, arch: Arch) -> Command {
        let name = format!("qemu-system-{}", arch.names().machine);
        let mut command = Command::new(&self.loader);
        command.arg("--library-path").arg(&self.libraries).arg(self.root.join("usr/bin").join(name));
        // It looks for them from where its program is, which is the loader now.
        command.env("QEMU_MODULE_DIR", self.libraries.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root.join(firmware));
        }
        command
    }

    /// Wraps every program below `dir`.
    pub fn wrap_all(&self, dir: &Path) -> Result<()> {
        for path in files(dir)? {
            let meta = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let is_elf = || fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
            if meta.permissions().mode() & 0o111 != 0 && is_elf() {
                self.wrap(&path)?;
            }
        }
        Ok(())
    }

    /// Puts a script in a program's place that runs it with the loader. The program keeps the name it is called by:
    /// kbuild's look for others beside themselves.
    fn wrap(&self, program: &Path) -> Result<()> {
        let mut name = program.as_os_str().to_owned();
        name.push(".elf");
        let elf = PathBuf::from(name);
        fs::rename(program, &elf).with_context(|| format!("cannot rename {}", program.display()))?;
        let script = format!(
            "#!/bin/sh\nexec '{}' --library-path '{}' --argv0 \"$0\" '{}' \"$@\"\n",
            self.loader.display(),
            self.libraries.display(),
            elf.display()
        );
        write_program(program, &script)
    }
}

pub fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Regular files below `dir`, in order.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        let kind = entry.file_type().with_context(|| format!("cannot list {}", dir.display()))?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn a_wrapped_program_runs_with_the_loader_and_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tool");
        fs::write(&program, b"\x7fELF").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("Makefile"), "text").unwrap();
        // In place of the loader: says how it was called.
        let userland = Userland { root: PathBuf::new(), libraries: "/l".into(), loader: "/bin/echo".into() };
        userland.wrap_all(dir.path()).unwrap();
        let said = process::output(Command::new(&program).arg("a b"), "running it").unwrap();
        let path = program.display();
        assert_eq!(said.trim(), format!("--library-path /l --argv0 {path} {path}.elf a b"));
        assert_eq!(fs::read(dir.path().join("Makefile")).unwrap(), b"text");
    }
}
