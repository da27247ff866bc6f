//! What lies beside the programs: manual pages, completions, changelogs, licences.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::release::Release;
use super::tree::gzip;
use crate::{process, workspace};

/// Shells, and where Debian has their completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "share/bash-completion/completions/spark-trace"),
    ("zsh", "share/zsh/vendor-completions/_spark-trace"),
    ("fish", "share/fish/vendor_completions.d/spark-trace.fish"),
];

/// Manual pages and completions: paths below /usr, and contents.
///
/// `spark_trace` is for this machine: it prints them itself.
pub fn of_the_command_line(spark_trace: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let scratch = workspace::target_dir()?.join("dist-man");
    // Pages of subcommands that are gone.
    let _ = fs::remove_dir_all(&scratch);
    let mut command = Command::new(spark_trace);
    process::output(command.args(["man", "--output"]).arg(&scratch), "writing manual pages")?;
    let mut files = Vec::new();
    for page in list(&scratch)? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((format!("share/man/man1/{name}.gz"), gzip(&read(&page)?)?));
    }
    for (shell, path) in COMPLETIONS {
        let mut command = Command::new(spark_trace);
        let script = process::output(command.args(["completions", shell]), "writing completions")?;
        files.push(((*path).to_owned(), script.into_bytes()));
    }
    Ok(files)
}

/// Changelogs and licence of one package; `linked` says what else is in its programs.
pub fn of_a_package(package: &str, linked: &str, release: &Release) -> Result<Vec<(String, Vec<u8>)>> {
    let root = workspace::root();
    let folder = format!("share/doc/{package}");
    Ok(vec![
        (format!("{folder}/changelog.gz"), gzip(&read(&root.join("CHANGELOG.md"))?)?),
        (format!("{folder}/changelog.Debian.gz"), gzip(debian_changelog(package, release)?.as_bytes())?),
        (format!("{folder}/copyright"), copyright(&root, linked)?.into_bytes()),
    ])
}

/// deb-changelog(5): what is new is in the changelog of the program.
fn debian_changelog(package: &str, release: &Release) -> Result<String> {
    Ok(format!(
        "{package} ({}) unstable; urgency=medium\n\n  * Built from {}.\n\n -- {}  {}\n",
        release.debian_version(),
        release.commit,
        release.maintainer,
        release.date()?
    ))
}

/// In the machine-readable form of Debian.
fn copyright(root: &Path, linked: &str) -> Result<String> {
    let mit = String::from_utf8(read(&root.join("LICENSE-MIT"))?).context("LICENSE-MIT is no UTF-8")?;
    let holder =
        mit.lines().find(|line| line.starts_with("Copyright")).context("LICENSE-MIT names nobody")?;
    // Below the title and the line with the name.
    let terms = mit.split_once(holder).map_or("", |(_, terms)| terms).trim();
    let terms = terms.lines().map(|line| if line.is_empty() { " .\n".into() } else { format!(" {line}\n") });
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: spark-trace\n\n\
         Files: *\n{holder}\nLicense: MIT or Apache-2.0\n\
         Comment: Programs contain crates by others; their licences are in third-party.txt.gz beside this file.\n\
         {linked}\n\
         Files: spark-trace-ebpf/*\n{holder}\nLicense: MIT or GPL-2\n\
         Comment: The object that runs in the kernel; the spark-trace program carries it as data.\n\n\
         License: MIT or Apache-2.0\n {either}\n\n\
         License: MIT or GPL-2\n {gpl}\n\n\
         License: MIT\n{terms}",
        holder = holder.replacen("Copyright (c)", "Copyright:", 1),
        either = "The terms of MIT stand below; on Debian systems those of the Apache License 2.0 are in\n \
                  /usr/share/common-licenses/Apache-2.0.",
        gpl = "The terms of MIT stand below; on Debian systems those of the GNU General Public License 2 are in\n \
               /usr/share/common-licenses/GPL-2.",
        terms = terms.collect::<String>(),
    ))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copyright_names_holder_and_terms() {
        let text = copyright(&workspace::root(), " And more.\n").unwrap();
        assert!(text.contains("Copyright: 2026 the spark-trace authors\n"), "{text}");
        assert!(text.contains("beside this file.\n And more.\n\nFiles: spark-trace-ebpf"), "{text}");
        assert!(text.contains("License: MIT\n Permission is hereby granted"), "{text}");
        // Every line stands in a field.
        assert!(
            text.lines().all(|line| line.is_empty() || line.starts_with(' ') || line.contains(": ")),
            "{text}"
        );
    }

    #[test]
    fn changelog_has_the_form_that_debian_reads() {
        let release = Release {
            version: "0.1.0".to_owned(),
            maintainer: "A <a@b.org>".to_owned(),
            homepage: None,
            time: 1_763_743_212,
            commit: "commit 1".to_owned(),
        };
        let expected = "p (0.1.0-1) unstable; urgency=medium\n\n  * Built from commit 1.\n\n \
                        -- A <a@b.org>  Fri, 21 Nov 2025 16:40:12 +0000\n";
        assert_eq!(debian_changelog("p", &release).unwrap(), expected);
    }
}
