//! Debian packages, downloaded and unpacked without being installed.
//!
//! apt does the work, with lists and settings of its own: the machine's stay as they are. It checks what it
//! downloads against Debian's signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::{arch::Arch, process, setup::KEYRING};

/// Where Debian's packages are for everyone; a Debian machine's own source is preferred.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// Package lists are fetched anew after this time.
const LISTS_AGE: Duration = Duration::from_hours(24);

/// One suite for one architecture.
pub struct Suite {
    name: &'static str,
    /// As Debian calls it.
    arch: &'static str,
    config: PathBuf,
    /// Downloaded packages, of all suites.
    downloads: PathBuf,
}

impl Suite {
    /// `cache` keeps lists and packages for the next time.
    pub fn open(cache: &Path, name: &'static str, arch: Arch) -> Result<Self> {
        let arch = arch.names().debian;
        let dir = cache.join("apt").join(format!("{name}-{arch}"));
        let downloads = cache.join("packages");
        for dir in
            [&dir.join("lists/partial"), &dir.join("cache/archives/partial"), &dir.join("parts"), &downloads]
        {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let source = dir.join("sources.list");
        write(&source, &format!("deb [signed-by={KEYRING} arch={arch}] {} {name} main\n", archive()))?;
        // What is installed here has nothing to do with it.
        write(&dir.join("status"), "")?;
        let config = dir.join("apt.conf");
        let at = dir.display();
        write(
            &config,
            &format!(
                "Dir::State::Lists \"{at}/lists\";\nDir::State::Status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
                 Dir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"{at}/parts\";\n\
                 APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
            ),
        )?;
        let suite = Self { name, arch, config, downloads };
        suite.refresh(&dir.join("updated"))?;
        Ok(suite)
    }

    /// `stamp` is as old as the lists.
    fn refresh(&self, stamp: &Path) -> Result<()> {
        let age = fs::metadata(stamp).and_then(|m| m.modified()).ok();
        let age = age.and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_some_and(|age| age < LISTS_AGE) {
            return Ok(());
        }
        let purpose = format!("fetching the package lists of {} for {}", self.name, self.arch);
        eprintln!("{purpose}");
        let updated =
            process::output(self.apt("apt-get").args(["update", "--quiet", "--error-on=any"]), &purpose);
        match (updated, age) {
            (Ok(_), _) => write(stamp, ""),
            // Old lists are better than none: a machine may be without network.
            (Err(error), Some(age)) => {
                eprintln!("{error:#}\ngoing on with lists that are {} hours old", age.as_secs() / 3600);
                Ok(())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// The newest package whose name has this beginning and end, as `linux-image-6.1.` and `-cloud-amd64`.
    pub fn newest(&self, prefix: &str, suffix: &str) -> Result<String> {
        let purpose = format!("looking for {prefix}*{suffix} in {}", self.name);
        let names = process::output(self.apt("apt-cache").args(["pkgnames", prefix]), &purpose)?;
        let newest = names
            .lines()
            .filter(|name| name.ends_with(suffix))
            // Names that are only mentioned by other packages cannot be had.
            .filter(|name| process::succeeds(self.apt("apt-cache").args(["show", name])))
            .max_by_key(|name| numbers(name));
        newest.map(ToOwned::to_owned).with_context(|| {
            format!("{}: Debian's {} has no {prefix}*{suffix} (any more)", purpose, self.name)
        })
    }

    /// Whether there is such a package.
    pub fn has(&self, package: &str) -> bool {
        process::succeeds(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// Downloads a package, or finds it downloaded, and unpacks it into `to`.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let path = self.download(package)?;
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        let mut command = Command::new("dpkg-deb");
        process::output(command.arg("-x").arg(&path).arg(to), &format!("unpacking {package}")).map(drop)
    }

    /// The same with all that `packages` depend on, down to the C library: nothing of it need be on this machine.
    pub fn unpack_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<()> {
        let purpose = format!("downloading {} from Debian's {}", packages.join(", "), self.name);
        let install = ["install", "--yes", "--quiet", "--no-install-recommends", "--print-uris"];
        // No package is installed as far as these lists know, so each that it takes is named.
        let uris = process::output(self.apt("apt-get").args(install).args(packages), &purpose)?;
        let lines = uris.lines().filter(|line| line.starts_with('\''));
        // 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:...
        let names: Vec<_> =
            lines.filter_map(|line| line.split_whitespace().nth(1)?.split('_').next()).collect();
        ensure!(!names.is_empty(), "{purpose}: apt-get said: {uris}");
        names.into_iter().try_for_each(|package| self.unpack(package, to))
    }

    /// What dpkg notes of an installed package.
    pub fn installed(&self, package: &str) -> Result<String> {
        let path = self.download(package)?;
        let fields = ["Package", "Version", "Architecture", "Maintainer", "Multi-Arch", "Description"];
        let mut command = Command::new("dpkg-deb");
        command.arg("--field").arg(&path).args(fields);
        let fields = process::output(&mut command, &format!("reading the fields of {package}"))?;
        Ok(format!("Status: install ok installed\n{fields}\n"))
    }

    fn download(&self, package: &str) -> Result<PathBuf> {
        let purpose = format!("downloading {package} from Debian's {}", self.name);
        let uri = process::output(self.apt("apt-get").args(["download", "--print-uris", package]), &purpose)?;
        // 'URI' FILE SIZE SHA256:...
        let file =
            uri.split_whitespace().nth(1).with_context(|| format!("{purpose}: apt-get said: {uri}"))?;
        let size: u64 = uri.split_whitespace().nth(2).and_then(|size| size.parse().ok()).unwrap_or(0);
        let path = self.downloads.join(file);
        if fs::metadata(&path).map_or(0, |m| m.len()) != size {
            eprintln!("{purpose}, {} MiB", size >> 20);
            // apt checks the sum, and leaves nothing where it does not fit.
            process::output(
                self.apt("apt-get").args(["download", "--quiet", package]).current_dir(&self.downloads),
                &purpose,
            )?;
        }
        Ok(path)
    }
}

/// The machine's own source of Debian's packages, or the public one.
fn archive() -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let targets = process::output(&mut command, "asking apt for its sources").unwrap_or_default();
    let own = targets.lines().find_map(|line| line.strip_prefix("Debian Debian "));
    own.unwrap_or(ARCHIVE).trim_end_matches('/').to_owned()
}

/// The numbers in a name, to compare versions by: 6.12.95 is newer than 6.12.9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(
            numbers("linux-image-6.12.95+deb12-cloud-amd64")
                > numbers("linux-image-6.12.9+deb12-cloud-amd64")
        );
        assert!(numbers("linux-image-6.1.0-50-cloud-amd64") > numbers("linux-image-6.1.0-9-cloud-amd64"));
    }
}
