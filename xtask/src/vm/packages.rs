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

    /// Downloads packages, or finds them downloaded, and unpacks them into `to`. Returns their files.
    pub fn unpack(&self, packages: &[&str], to: &Path) -> Result<Vec<PathBuf>> {
        let paths = self.download(packages)?;
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        for path in &paths {
            let mut command = Command::new("dpkg-deb");
            let purpose = format!("unpacking {}", path.display());
            process::output(command.arg("-x").arg(path).arg(to), &purpose)?;
        }
        Ok(paths)
    }

    /// The same with all that `packages` depend on, down to the C library: nothing of it need be on this machine.
    pub fn unpack_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<()> {
        let purpose = format!("listing what {} of Debian's {} take", packages.join(", "), self.name);
        let install = ["install", "--yes", "--quiet", "--no-install-recommends", "--print-uris"];
        // No package is installed as far as these lists know, so each that it takes is named.
        let uris = process::output(self.apt("apt-get").args(install).args(packages), &purpose)?;
        let files = uris.lines().filter_map(uri).map(|(file, _)| file);
        let names: Vec<_> = files.filter_map(|file| file.split('_').next()).collect();
        ensure!(!names.is_empty(), "{purpose}: apt-get said: {uris}");
        self.unpack(&names, to).map(drop)
    }

    /// Together: apt takes a second for each call.
    fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let purpose = format!("downloading {} from Debian's {}", packages.join(" "), self.name);
        let mut command = self.apt("apt-get");
        let uris = process::output(command.args(["download", "--print-uris"]).args(packages), &purpose)?;
        let wanted: Vec<_> = uris.lines().filter_map(uri).collect();
        ensure!(wanted.len() == packages.len(), "{purpose}: apt-get said: {uris}");
        let is_there =
            |file: &str, size| fs::metadata(self.downloads.join(file)).is_ok_and(|there| there.len() == size);
        let bytes: u64 =
            wanted.iter().filter(|(file, size)| !is_there(file, *size)).map(|(_, size)| size).sum();
        if bytes > 0 {
            eprintln!("{purpose}, {} MiB", bytes >> 20);
            // apt passes over what is there, checks sums, and leaves nothing where they do not fit.
            let mut command = self.apt("apt-get");
            command.args(["download", "--quiet"]).args(packages).current_dir(&self.downloads);
            process::output(&mut command, &purpose)?;
        }
        Ok(wanted.into_iter().map(|(file, _)| self.downloads.join(file)).collect())
    }
}

/// What dpkg notes of installed packages, of whose files these are.
pub fn installed(paths: &[PathBuf]) -> Result<String> {
    let fields = ["Package", "Version", "Architecture", "Maintainer", "Multi-Arch", "Description"];
    let noted = paths.iter().map(|path| {
        let mut command = Command::new("dpkg-deb");
        command.arg("--field").arg(path).args(fields);
        let purpose = format!("reading the fields of {}", path.display());
        let fields = process::output(&mut command, &purpose)?;
        Ok(format!("Status: install ok installed\n{fields}\n"))
    });
    noted.collect()
}

/// File and size of a line `'URI' FILE SIZE SHA256:...`.
fn uri(line: &str) -> Option<(&str, u64)> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// The machine's own source of Debian's packages, or the public one.
fn archive() -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let targets = process::output(&mut command, "listing the sources of apt").unwrap_or_default();
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
    fn a_line_of_apts_names_file_and_size() {
        let line = "'http://deb.debian.org/debian/pool/main/d/dash/dash_0.5.12-2_amd64.deb' dash_0.5.12-2_amd64.deb 97436 \
                    SHA256:33ea40061da2f1a861ec46212b2b6a34f0776a049b1f0f0abce2fb8cb994258f";
        assert_eq!(uri(line), Some(("dash_0.5.12-2_amd64.deb", 97436)));
        assert_eq!(uri("The following NEW packages will be installed:"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(
            numbers("linux-image-6.12.95+deb12-cloud-amd64")
                > numbers("linux-image-6.12.9+deb12-cloud-amd64")
        );
        assert!(numbers("linux-image-6.1.0-50-cloud-amd64") > numbers("linux-image-6.1.0-9-cloud-amd64"));
    }
}
