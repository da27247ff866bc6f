//! The environment child tools run in.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables an outer cargo, rustup proxy or build script sets, by prefix. They describe the outer
/// build (its target, flags, wrappers, jobserver) and would silently change the inner one.
const OUTER_BUILD: &[&str] =
    &["CARGO", "__CARGO", "RUST", "CLIPPY", "MAKEFLAGS", "MFLAGS", "DEP_", "LD_LIBRARY_PATH", "OUT_DIR"];

/// Settings of the user or the machine that share such a prefix.
const USER_SETTINGS: &[&str] =
    &["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_", "RUSTUP_"];

/// Set by cargo for build scripts without a prefix of their own.
const BUILD_SCRIPT: &[&str] = &["TARGET", "HOST", "NUM_JOBS", "OPT_LEVEL", "PROFILE", "DEBUG"];

/// Removes from `command` what an outer cargo has put into this process's environment.
pub fn clean_environment(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_outer_build) {
            command.env_remove(&name);
        }
    }
    // Empty, not only absent: a wrapper may also come from cargo's configuration files.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "")
}

fn describes_outer_build(name: &str) -> bool {
    if name == "RUSTUP_TOOLCHAIN" || BUILD_SCRIPT.contains(&name) {
        return true;
    }
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    starts(OUTER_BUILD) && !starts(USER_SETTINGS)
}

/// First executable file called `name` in PATH.
pub fn find_in_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    all_in_path(name.as_ref()).next()
}

/// Every file called `name` in PATH, in order.
pub(crate) fn all_in_path(name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let dirs: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let name = name.to_owned();
    dirs.into_iter().map(move |dir| dir.join(&name)).filter(|path| path.is_file())
}

/// `$HOME/below`, or `$variable` where that is set.
pub(crate) fn home_or(variable: &str, below: &str) -> Option<PathBuf> {
    let set = std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    set.or_else(|| std::env::home_dir().map(|home| home.join(below)))
}

/// Flags that keep paths of this machine out of what rustc writes, so that others build the same from the same sources.
pub fn remap_paths(workspace: &Path) -> Vec<String> {
    let homes = [home_or("CARGO_HOME", ".cargo"), home_or("RUSTUP_HOME", ".rustup")];
    let homes = homes.into_iter().zip(["/cargo", "/rustup"]).filter_map(|(home, to)| Some((home?, to)));
    let all = homes.chain([(workspace.to_owned(), "/spark-trace")]);
    all.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::describes_outer_build;

    #[test]
    fn outer_build_is_dropped_and_user_settings_stay() {
        let dropped = [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_FEATURE_LIVE",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "RUST_RECURSION_COUNT",
            "CLIPPY_ARGS",
            "MAKEFLAGS",
            "TARGET",
            "LD_LIBRARY_PATH",
        ];
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "RUSTUP_HOME", "PATH", "HOME"];
        for name in dropped {
            assert!(describes_outer_build(name), "{name} must not reach the inner build");
        }
        for name in kept {
            assert!(!describes_outer_build(name), "{name} must reach the inner build");
        }
    }
}
