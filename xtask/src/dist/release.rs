//! What is packaged: version, author and time, from Cargo's metadata and git.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process, workspace};

/// Where Cargo.toml names nobody. Packages need an address; this one cannot exist (RFC 2606).
const NOBODY: &str = "spark-trace developers <nobody@spark-trace.invalid>";

/// One release, or a build between two.
pub struct Release {
    /// Cargo's.
    pub version: String,
    /// Name and address.
    pub maintainer: String,
    pub homepage: Option<String>,
    /// Seconds since 1970 that everything is dated with: $SOURCE_DATE_EPOCH, else the commit's.
    pub time: u64,
    /// What it is built from.
    pub commit: String,
}

impl Release {
    pub fn find() -> Result<Self> {
        let mut command = process::cargo();
        command.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(workspace::root());
        let metadata = process::output(&mut command, "reading the version by cargo metadata")?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is no JSON")?;
        Self::from_metadata(&metadata, time()?, workspace::commit())
    }

    fn from_metadata(metadata: &Value, time: u64, commit: String) -> Result<Self> {
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let package = packages.iter().find(|package| package["name"] == "spark-trace");
        let package = package.context("cargo metadata has no spark-trace")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            version: text(&package["version"]).context("spark-trace has no version")?,
            maintainer: text(&package["authors"][0]).unwrap_or_else(|| NOBODY.to_owned()),
            homepage: text(&package["homepage"]).or_else(|| text(&package["repository"])),
            time,
            commit,
        })
    }

    /// Debian's version: Cargo's, with pre-releases before the release, and a revision of the packaging.
    pub fn debian_version(&self) -> String {
        format!("{}-1", self.version.replacen('-', "~", 1))
    }

    /// As in RFC 5322, in UTC.
    pub fn date(&self) -> Result<String> {
        let mut command = Command::new("date");
        command.args(["--utc", "--date", &format!("@{}", self.time), "+%a, %d %b %Y %H:%M:%S +0000"]);
        let date = process::output(command.env("LC_ALL", "C"), "writing a date")?;
        Ok(date.trim().to_owned())
    }
}

fn time() -> Result<u64> {
    if let Ok(set) = std::env::var("SOURCE_DATE_EPOCH") {
        return set.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {set}"));
    }
    let time = workspace::git(&["log", "-1", "--format=%ct"]).context(
        "packages are dated by the commit; without git set SOURCE_DATE_EPOCH to seconds since 1970",
    )?;
    let time = time.trim().parse().with_context(|| format!("git names no time: {time}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    ensure!(time <= now, "the commit is from the future: is the clock right?");
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_author_are_cargos() {
        let release = |package: Value| {
            let metadata = serde_json::json!({"packages": [{"name": "xtask"}, package]});
            Release::from_metadata(&metadata, 1_763_743_212, "commit 1".to_owned())
        };
        let full = serde_json::json!({"name": "spark-trace", "version": "1.2.0-rc.1", "authors": ["A <a@b.org>"],
            "homepage": null, "repository": "https://b.org"});
        let full = release(full).unwrap();
        assert_eq!((&full.debian_version()[..], &full.maintainer[..]), ("1.2.0~rc.1-1", "A <a@b.org>"));
        assert_eq!(full.homepage.as_deref(), Some("https://b.org"));
        assert_eq!(full.date().unwrap(), "Fri, 21 Nov 2025 16:40:12 +0000");
        let bare =
            release(serde_json::json!({"name": "spark-trace", "version": "0.1.0", "authors": []})).unwrap();
        assert_eq!((&bare.debian_version()[..], &bare.maintainer[..]), ("0.1.0-1", NOBODY));
        assert!(release(serde_json::json!({"name": "other"})).is_err());
    }
}
