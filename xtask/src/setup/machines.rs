//! What virtual machines take. QEMU itself is downloaded with the kernels.

use std::path::Path;

use ebpf_build::find_in_path;

use super::Remedy;

/// Signs what Debian's archive has.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program, and Debian's package of it.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", "apt"),
    ("dpkg-deb", "dpkg"),
    ("make", "make"),
    ("mke2fs", "e2fsprogs"),
    ("strip", "binutils"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// What checks Debian's packages.
const OTHERS: &[&str] = &["debian-archive-keyring"];

pub fn find() -> Result<String, String> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| find_in_path(program).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(format!("not in PATH: {}", missing.join(", ")));
    }
    if !Path::new(KEYRING).is_file() {
        return Err(format!("{KEYRING} is not there"));
    }
    Ok("what downloads QEMU and kernels, and makes disks for them".to_owned())
}

pub fn remedies() -> Vec<Remedy> {
    let packages: Vec<_> =
        PROGRAMS.iter().map(|(_, package)| *package).chain(OTHERS.iter().copied()).collect();
    vec![Remedy::apt(&packages, &[])]
}
