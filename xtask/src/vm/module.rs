//! The stand-in for NVIDIA's kernel modules (testing/stand-in/), built for one of the kernels.
//!
//! Debian has headers for each kernel, and the programs that kbuild runs (`linux-kbuild-*`) for the machine that
//! builds. Both are unpacked, not installed. Newer suites' programs need a newer C library than this machine may have, so
//! all of them are run with the one that QEMU is run with (`userland.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::Unpacked;
use super::kernels::Kernel;
use super::packages::Suite;
use super::userland::{Userland, files, write_program};
use crate::{arch::Arch, process, workspace};

/// File names of what is built.
pub const MODULES: [&str; 2] = ["nvidia.ko", "nvidia-uvm.ko"];

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
pub fn build(
    kernel: &Kernel,
    unpacked: &Unpacked,
    userland: &Userland,
    cache: &Path,
) -> Result<Vec<PathBuf>> {
    let release = unpacked.package.trim_start_matches("linux-image-");
    let dir = cache.join("stand-in").join(release);
    let sources = workspace::root().join("testing/stand-in");
    let text = all_text(&sources)?;
    let built: Vec<_> = MODULES.iter().map(|name| dir.join(name)).collect();
    let stamp = dir.join("built-from");
    if fs::read_to_string(&stamp).is_ok_and(|from| from == text) && built.iter().all(|path| path.is_file()) {
        return Ok(built);
    }
    let headers = headers(kernel, release, cache, userland)?;
    let _ = fs::remove_dir_all(&dir);
    let mut copy = Command::new("cp");
    fs::create_dir_all(cache.join("stand-in")).context("cannot create the modules' folder")?;
    process::output(copy.arg("--recursive").arg(&sources).arg(&dir), "copying testing/stand-in/")?;
    let compiler = dir.join("compiler");
    write_program(&compiler, &COMPILER.replace("GCC", &kernel.arch.gcc()))?;
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(&headers)
        .arg(format!("M={}", dir.display()))
        .arg(format!("CC={}", compiler.display()));
    make.arg(format!("CROSS_COMPILE={}-", kernel.arch.names().gnu));
    make.arg(format!("PAHOLE={}", userland.pahole().display())).arg("modules");
    // Both are the kernel's own variables, too.
    make.env_remove("ARCH").env_remove("KBUILD_OUTPUT");
    let purpose = format!(
        "building testing/stand-in/ for {release} (it takes make, {} and binutils, see `cargo xtask setup --cross`)",
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
fn headers(kernel: &Kernel, release: &str, cache: &Path, userland: &Userland) -> Result<PathBuf> {
    let root = cache.join("headers").join(release);
    let headers = root.join("usr/src").join(format!("linux-headers-{release}"));
    let done = root.join("ready");
    if done.is_file() {
        return Ok(headers);
    }
    let _ = fs::remove_dir_all(&root);
    let suite = Suite::open(cache, kernel.suite, kernel.arch)?;
    suite.unpack(&[&format!("linux-headers-{release}")], &root)?;
    let makefile = headers.join("Makefile");
    let text = read(&makefile)?;
    // What they share with others is named where it is included: /usr/src/linux-headers-VERSION-common/Makefile.
    let named = |line: &str| {
        let path = line.strip_prefix("include ")?.strip_suffix("/Makefile")?;
        path.strip_prefix("/usr/src/").map(ToOwned::to_owned)
    };
    let common = text.lines().find_map(named);
    let common = common.with_context(|| format!("{} includes no common headers", makefile.display()))?;
    suite.unpack(&[&common], &root)?;
    // And the programs where a link leads to: ../../lib/linux-kbuild-VERSION/scripts.
    let scripts = headers.join("scripts");
    let link = fs::read_link(&scripts).with_context(|| format!("{} is no link", scripts.display()))?;
    let kbuild = link.iter().filter_map(|part| part.to_str()).find(|part| part.starts_with("linux-kbuild-"));
    let kbuild = kbuild.with_context(|| format!("{} does not lead to kbuild", scripts.display()))?;
    Suite::open(cache, kernel.suite, Arch::host()?)?.unpack(&[kbuild], &root)?;
    userland.wrap_all(&root.join("usr/lib").join(kbuild))?;
    let at = format!("{}/usr/src/", root.display());
    fs::write(&makefile, text.replace("/usr/src/", &at))
        .and_then(|()| fs::write(&done, ""))
        .with_context(|| format!("cannot write below {}", root.display()))?;
    Ok(headers)
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
    #[ignore = "downloads headers of every kernel, and builds for each"]
    fn the_modules_build_for_every_kernel_with_their_types() {
        let cache = workspace::target_dir().unwrap().join("vm");
        let userland = Userland::unpack(&cache).unwrap();
        for kernel in super::super::kernels::KERNELS.iter().filter(|kernel| kernel.headers) {
            let suite = Suite::open(&cache, kernel.suite, kernel.arch).unwrap();
            let flavour = format!("-{}", kernel.flavour);
            let package = suite.newest(&format!("linux-image-{}", kernel.series), &flavour).unwrap();
            let unpacked = Unpacked { package, image: PathBuf::new(), modules: Vec::new() };
            for path in build(kernel, &unpacked, &userland, &cache).unwrap() {
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
