//! `cargo xtask dist`: packages for Debian and Ubuntu, and tarballs.

mod deb;
mod documents;
mod needs;
mod packages;
mod release;
mod third_party;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::ValueEnum;
use sha2::Sha256;

use crate::arch::{ARCHES, Arch};
use crate::build::{Build, Profile};
use crate::workspace;
use documents::read;
use packages::{PACKAGES, Parts};
use release::Release;
use tree::{Tree, gzip};

/// Makes packages for Debian and Ubuntu, and tarballs, with their SHA-256 sums
///
/// Two packages: spark-trace with its manual pages and completions, and spark-trace-workload. A tarball holds both, to be
/// unpacked into /usr/local or any other folder. The same commit and tools give the same bytes: everything is dated by
/// the commit, or $SOURCE_DATE_EPOCH. What programs need of the C library is checked against Ubuntu 24.04.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask dist
  cargo xtask dist --arch all --output packages
  sudo apt install ./packages/spark-trace_0.1.0-1_arm64.deb

For an architecture other than this machine's, what it takes is installed first, as `cargo xtask setup --cross` does.")]
pub struct Args {
    /// Architectures: amd64, arm64, both with a comma, or all; this machine's where not given
    #[arg(long, value_name = "ARCH")]
    arch: Option<Arches>,
    /// Folder to put them in; made if missing
    #[arg(long, value_name = "DIR", default_value = "target/packages")]
    output: PathBuf,
}

/// Architectures as the command line names them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arches(Vec<Arch>);

impl FromStr for Arches {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(ARCHES.iter().map(|names| names.arch).collect()));
        }
        let parse = |name| Arch::from_str(name, false).map_err(|_| format!("{name}: amd64, arm64 or all"));
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// What was made for one architecture.
#[derive(Debug)]
pub struct Made {
    /// Packages for Debian, spark-trace's first.
    pub packages: Vec<PathBuf>,
    pub tarball: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let arches = match &args.arch {
        Some(Arches(arches)) => arches.clone(),
        None => vec![Arch::host()?],
    };
    let mut files = Vec::new();
    for arch in arches {
        let made = build(arch, &args.output)?;
        files.extend(made.packages);
        files.push(made.tarball);
    }
    files.sort();
    write_sums(&args.output, &files)?;
    files.iter().for_each(|file| println!("{}", file.display()));
    Ok(())
}

/// Builds the programs for an architecture and packages them into `output`.
pub fn build(arch: Arch, output: &Path) -> Result<Made> {
    let release = Release::find()?;
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    let build = Build { arch: Some(arch), profile: Profile::Dist };
    build.ensure_tools()?;
    let (built, cuda) = (build.all()?, build.cuda()?);
    // Programs of another architecture cannot run here to print their manual pages.
    let own = match arch.is_host() {
        true => built.spark_trace.clone(),
        false => Build { arch: Some(Arch::host()?), profile: Profile::Dist }.spark_trace()?,
    };
    let parts = Parts { arch, built, cuda, documents: documents::of_the_command_line(&own)? };
    let mut made = Made { packages: Vec::new(), tarball: PathBuf::new() };
    let mut all = Tree::default();
    for package in PACKAGES {
        let tree = package.tree(&parts, &release)?;
        let mut installed = Tree::default();
        let remarks = package.overrides().into_iter();
        installed.0.extend(tree.0.iter().map(|(path, file)| (format!("usr/{path}"), file.clone())));
        remarks.for_each(|(path, content)| installed.data(&format!("usr/{path}"), content));
        let control = package.control(&installed, arch, &release)?;
        let path = output.join(deb::name(&control));
        write(&path, &deb::package(&control, &installed, release.time)?)?;
        made.packages.push(path);
        all.0.extend(tree.0.into_iter().filter_map(|(path, file)| Some((elsewhere(&path)?, file))));
    }
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        all.data(&format!("share/doc/spark-trace/{name}"), read(&workspace::root().join(name))?);
    }
    let top = format!("spark-trace-{}-{}", release.version, arch.names().debian);
    made.tarball = output.join(format!("{top}.tar.gz"));
    write(&made.tarball, &gzip(&all.tar(&format!("{top}/"), release.time)?)?)?;
    Ok(made)
}

/// Where a file of a Debian package lies on other systems; nowhere where it is about the package.
fn elsewhere(path: &str) -> Option<String> {
    let shared = !path.ends_with("/changelog.Debian.gz");
    shared.then(|| path.replace("share/zsh/vendor-completions/", "share/zsh/site-functions/"))
}

/// `SHA256SUMS` beside the files, for `sha256sum --check`.
fn write_sums(output: &Path, files: &[PathBuf]) -> Result<()> {
    let mut contents = Vec::new();
    for file in files {
        contents.push((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), read(file)?));
    }
    let sums = deb::checksums::<Sha256>(contents.iter().map(|(name, content)| (&name[..], &content[..])));
    write(&output.join("SHA256SUMS"), &sums)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_named_by_commas_or_all() {
        assert_eq!("all".parse(), Ok(Arches(vec![Arch::Amd64, Arch::Arm64])));
        assert_eq!("arm64,x86_64".parse(), Ok(Arches(vec![Arch::Arm64, Arch::Amd64])));
        assert_eq!("arm".parse::<Arches>(), Err("arm: amd64, arm64 or all".to_owned()));
    }

    #[test]
    fn tarballs_have_no_files_of_debian() {
        let zsh = elsewhere("share/zsh/vendor-completions/_spark-trace");
        assert_eq!(zsh.as_deref(), Some("share/zsh/site-functions/_spark-trace"));
        assert_eq!(elsewhere("bin/spark-trace").as_deref(), Some("bin/spark-trace"));
        assert_eq!(elsewhere("share/doc/spark-trace/changelog.Debian.gz"), None);
    }

    #[test]
    fn sums_name_files_without_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "x").unwrap();
        write_sums(dir.path(), &[file]).unwrap();
        let sums = fs::read_to_string(dir.path().join("SHA256SUMS")).unwrap();
        assert_eq!(sums, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  a\n");
    }
}
