//! The stand-in for NVIDIA's kernel modules (stand-in/), built for one of the kernels.
//!
//! Debian has headers for each kernel, and the programs that kbuild runs (`linux-kbuild-*`) for the machine that
//! builds. Both are unpacked, not installed. Newer suites' programs need a newer C library than this machine may
//! have, so all of them are run with the loader and libraries of one suite, unpacked as well. pahole is that suite's,
//! too: it gives the modules their BTF, without which no fentry attaches to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::Unpacked;
use super::kernels::Kernel;
use super::packages::Suite;
use crate::{arch::Arch, process, workspace};

/// File names of what is built.
pub const MODULES: [&str; 2] = ["nvidia.ko", "nvidia-uvm.ko"];

/// Loader, libraries and pahole, for the programs that kbuild runs.
const TOOLS_SUITE: &str = "trixie";
const TOOLS: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libelf1t64",
    "libdw1t64",
    "libbpf1",
    "libssl3t64",
    "zlib1g",
    "libzstd1",
    "liblzma5",
    "libbz2-1.0",
    "pahole",
];

/// What a kernel's configuration took from a newer compiler, and what an older one has instead.
const COMPILER: &str = r#"#!/bin/bash
arguments=()
for argument; do
    case $argument in -fmin-function-alignment=*) argument=-falign-functions=${argument#*=} ;; esac
    arguments+=("$argument")
done
exec GCC "${arguments[@]}"
"#;

/// Builds the modules for a kernel, or finds them built from the same sources. Paths are in [`MODULES`]' order.
pub fn build(kernel: &Kernel, unpacked: &Unpacked, cache: &Path) -> Result<Vec<PathBuf>> {
    let release = unpacked.package.trim_start_matches("linux-image-");
    let dir = cache.join("stand-in").join(release);
    let sources = workspace::root().join("stand-in");
    let text = all_text(&sources)?;
    let built: Vec<_> = MODULES.iter().map(|name| dir.join(name)).collect();
    let stamp = dir.join("built-from");
    if fs::read_to_string(&stamp).is_ok_and(|from| from == text) && built.iter().all(|path| path.is_file()) {
        return Ok(built);
    }
    let tools = Tools::unpack(cache)?;
    let headers = headers(kernel, release, cache, &tools)?;
    let _ = fs::remove_dir_all(&dir);
    let mut copy = Command::new("cp");
    fs::create_dir_all(cache.join("stand-in")).context("cannot create the modules' folder")?;
    process::output(copy.arg("--recursive").arg(&sources).arg(&dir), "copying stand-in/")?;
    let compiler = dir.join("compiler");
    write_program(&compiler, &COMPILER.replace("GCC", &kernel.arch.gcc()))?;
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(&headers)
        .arg(format!("M={}", dir.display()))
        .arg(format!("CC={}", compiler.display()));
    make.arg(format!("CROSS_COMPILE={}-", kernel.arch.names().gnu));
    make.arg(format!("PAHOLE={}", tools.pahole.display())).arg("modules");
    // Both are the kernel's own variables, too.
    make.env_remove("ARCH").env_remove("KBUILD_OUTPUT");
    let purpose = format!(
        "building stand-in/ for {release} (it takes make, {} and binutils, see `cargo xtask setup --cross`)",
        kernel.arch.gcc()
    );
    process::output(&mut make, &purpose)?;
    for path in &built {
        ensure!(path.is_file(), "make succeeded and left no {}", path.display());
    }
    fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(built)
}

/// Unpacks a kernel's headers and what belongs to them, and gives the folder to run make in.
fn headers(kernel: &Kernel, release: &str, cache: &Path, tools: &Tools) -> Result<PathBuf> {
    let root = cache.join("headers").join(release);
    let headers = root.join("usr/src").join(format!("linux-headers-{release}"));
    let done = root.join("ready");
    if done.is_file() {
        return Ok(headers);
    }
    let _ = fs::remove_dir_all(&root);
    let suite = Suite::open(cache, kernel.suite, kernel.arch)?;
    suite.unpack(&format!("linux-headers-{release}"), &root)?;
    let makefile = headers.join("Makefile");
    let text = read(&makefile)?;
    // What they share with others is named where it is included: /usr/src/linux-headers-VERSION-common/Makefile.
    let named = |line: &str| {
        let path = line.strip_prefix("include ")?.strip_suffix("/Makefile")?;
        path.strip_prefix("/usr/src/").map(ToOwned::to_owned)
    };
    let common = text.lines().find_map(named);
    let common = common.with_context(|| format!("{} includes no common headers", makefile.display()))?;
    suite.unpack(&common, &root)?;
    // And the programs where a link leads to: ../../lib/linux-kbuild-VERSION/scripts.
    let scripts = headers.join("scripts");
    let link = fs::read_link(&scripts).with_context(|| format!("{} is no link", scripts.display()))?;
    let kbuild = link.iter().filter_map(|part| part.to_str()).find(|part| part.starts_with("linux-kbuild-"));
    let kbuild = kbuild.with_context(|| format!("{} does not lead to kbuild", scripts.display()))?;
    Suite::open(cache, kernel.suite, Arch::host()?)?.unpack(kbuild, &root)?;
    tools.wrap_all(&root.join("usr/lib").join(kbuild))?;
    let at = format!("{}/usr/src/", root.display());
    fs::write(&makefile, text.replace("/usr/src/", &at))
        .and_then(|()| fs::write(&done, ""))
        .with_context(|| format!("cannot write below {}", root.display()))?;
    Ok(headers)
}

/// What runs programs of newer systems here.
struct Tools {
    loader: PathBuf,
    libraries: PathBuf,
    pahole: PathBuf,
}

impl Tools {
    fn unpack(cache: &Path) -> Result<Self> {
        let host = Arch::host()?;
        let root = cache.join("build-tools");
        let libraries = root.join("usr/lib").join(host.names().gnu);
        let loader = libraries.join(match host {
            Arch::Amd64 => "ld-linux-x86-64.so.2",
            Arch::Arm64 => "ld-linux-aarch64.so.1",
        });
        let tools = Self { loader, libraries, pahole: root.join("usr/bin/pahole") };
        let done = root.join("ready");
        if !done.is_file() {
            let _ = fs::remove_dir_all(&root);
            let suite = Suite::open(cache, TOOLS_SUITE, host)?;
            for package in TOOLS {
                suite.unpack(package, &root)?;
            }
            tools.wrap(&tools.pahole)?;
            fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
        }
        Ok(tools)
    }

    /// Wraps every program below `dir`.
    fn wrap_all(&self, dir: &Path) -> Result<()> {
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

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Regular files below `dir`, in order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
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

/// Names and text of all sources.
fn all_text(dir: &Path) -> Result<String> {
    let mut all = String::new();
    for path in files(dir)? {
        all.push_str(&format!("== {}\n{}", path.display(), read(&path)?));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_program_runs_with_the_loader_and_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tool");
        fs::write(&program, b"\x7fELF").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("Makefile"), "text").unwrap();
        // In place of the loader: says how it was called.
        let tools = Tools { loader: "/bin/echo".into(), libraries: "/l".into(), pahole: PathBuf::new() };
        tools.wrap_all(dir.path()).unwrap();
        let said = process::output(Command::new(&program).arg("a b"), "running it").unwrap();
        let path = program.display();
        assert_eq!(said.trim(), format!("--library-path /l --argv0 {path} {path}.elf a b"));
        assert_eq!(fs::read(dir.path().join("Makefile")).unwrap(), b"text");
    }

    #[test]
    #[ignore = "downloads headers of every kernel, and builds for each"]
    fn the_modules_build_for_every_kernel_with_their_types() {
        let cache = workspace::target_dir().unwrap().join("vm");
        for kernel in super::super::kernels::KERNELS {
            let suite = Suite::open(&cache, kernel.suite, kernel.arch).unwrap();
            let flavour = format!("-{}", kernel.flavour);
            let package = suite.newest(&format!("linux-image-{}", kernel.series), &flavour).unwrap();
            let unpacked = Unpacked { package, image: PathBuf::new(), modules: Vec::new() };
            for path in build(kernel, &unpacked, &cache).unwrap() {
                let bytes = fs::read(&path).unwrap();
                let module = object::File::parse(&*bytes).unwrap();
                let has = |name| object::Object::section_by_name(&module, name).is_some();
                // Headers of 6.1 come without the kernel's own types, which a module's build upon.
                assert_eq!(has(".BTF"), kernel.series != "6.1.", "{}: {}", kernel.name, path.display());
                assert!(has(".modinfo"), "{}", path.display());
            }
            println!("{}: {}", kernel.name, unpacked.package);
        }
    }

    #[test]
    fn a_changed_source_is_built_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("nvidia")).unwrap();
        let file = dir.path().join("nvidia/nv.c");
        fs::write(&file, "one").unwrap();
        let before = all_text(dir.path()).unwrap();
        assert_eq!(before, all_text(dir.path()).unwrap());
        fs::write(&file, "two").unwrap();
        assert_ne!(before, all_text(dir.path()).unwrap());
    }
}
