//! What building for another architecture takes, and ways to get it.

use std::path::Path;
use std::process::Command;

use super::Remedy;
use crate::arch::Arch;
use crate::process;

/// The standard library for the other architecture, of the compiler that cargo uses.
pub fn find_rust() -> Result<String, String> {
    let triple = Arch::other().names().triple;
    let mut command = process::rustc();
    command.args(["--print", "target-libdir", "--target", triple]);
    let printed = process::output(&mut command, "finding the directory of a target");
    let directory = printed.map_err(|error| format!("{error:#}"))?;
    let directory = Path::new(directory.trim());
    // The directory alone may be left over: what counts is a library in it.
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    let mut entries = directory.read_dir().into_iter().flatten().flatten();
    match entries.any(|entry| entry.file_name().to_str().is_some_and(is_std)) {
        true => Ok(directory.display().to_string()),
        false => Err(format!("no standard library in {}", directory.display())),
    }
}

pub fn rust_remedies() -> Vec<Remedy> {
    let mut argv = vec!["rustup", "target", "add", Arch::other().names().triple];
    // The remedy runs without it, and would add the target to the default toolchain.
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").ok();
    if let Some(toolchain) = &toolchain {
        argv.extend(["--toolchain", toolchain]);
    }
    vec![Remedy::command(&argv)]
}

/// A C compiler for the other architecture, with what static programs are linked from.
pub fn find_c() -> Result<String, String> {
    let gcc = Arch::other().gcc();
    let path = ebpf_build::find_in_path(&gcc).ok_or_else(|| format!("no {gcc} in PATH"))?;
    let mut command = Command::new(&path);
    let printed = process::output(command.arg("-print-file-name=libc.a"), "finding the C library");
    let library = printed.map_err(|error| format!("{error:#}"))?;
    let library = Path::new(library.trim());
    // A name that it does not find it prints unchanged.
    match library.is_file() {
        true => Ok(format!("{}, {}", path.display(), library.display())),
        false => Err(format!("{} finds no libc.a", path.display())),
    }
}
