//! Packages of Debian and Ubuntu.

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::process;

/// Whether apt is here and offers all of `packages`.
pub fn knows(packages: &[String]) -> bool {
    if ebpf_build::find_in_path("apt-get").is_none() || !may_install() {
        return false;
    }
    refresh();
    packages.iter().all(|package| offers(package))
}

/// Installs `packages`, and those of `where_known` that apt offers.
pub fn install(packages: &[String], where_known: &[String]) -> Result<()> {
    let mut command = apt_get()?;
    command
        // --no-remove: some Rust packages conflict with others, and what the user has stays.
        .args(["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"])
        .args(packages)
        .args(where_known.iter().filter(|package| offers(package)));
    process::output(&mut command, "installing packages").map(drop)
}

/// Brings the package lists up to date, once: a fresh machine has none, old ones name files that are gone.
fn refresh() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let updated = apt_get().and_then(|mut command| {
            process::output(command.args(["update", "--quiet"]), "updating the package lists").map(drop)
        });
        // One unreachable source of several is no reason to give up on the others.
        if let Err(error) = updated {
            println!("warning     {error:#}");
        }
    });
}

fn offers(package: &str) -> bool {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions", package]);
    process::succeeds(&mut command)
}

fn may_install() -> bool {
    process::is_root() || ebpf_build::find_in_path("sudo").is_some()
}

fn apt_get() -> Result<Command> {
    // `env` because sudo does not pass our environment on.
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    if process::is_root() {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        return Ok(command);
    }
    if ebpf_build::find_in_path("sudo").is_none() {
        bail!("installing packages needs root, and there is no sudo: run `cargo xtask setup` as root once");
    }
    let mut command = Command::new("sudo");
    command.args(words);
    Ok(command)
}
