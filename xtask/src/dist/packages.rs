//! Which package holds what: one row each.

use anyhow::{Context, Result};

use super::deb::Control;
use super::documents::{self, read};
use super::needs::Needs;
use super::release::Release;
use super::third_party;
use super::tree::{Tree, gzip};
use crate::arch::Arch;
use crate::build::{Built, Cuda};
use crate::workspace;

/// One package.
pub struct Package {
    pub name: &'static str,
    synopsis: &'static str,
    description: &'static [&'static str],
    /// Fields of deb-control(5) that name other packages.
    relations: &'static [(&'static str, &'static str)],
    /// Lines of a comment about its licence: each after a blank.
    linked: &'static str,
    /// Cargo packages whose code it holds.
    crates: &'static [&'static str],
    /// Adds programs, and what belongs to them.
    fill: fn(&mut Tree, &Parts) -> Result<()>,
    /// Remarks for lintian, with reasons: `TAG [PATH]`.
    overrides: &'static [(&'static str, &'static str)],
}

/// What packages are made from.
pub struct Parts {
    pub arch: Arch,
    pub built: Built,
    pub cuda: Cuda,
    /// Manual pages and completions.
    pub documents: Vec<(String, Vec<u8>)>,
}

/// Below /usr, where programs lie that are not for the PATH.
const LIBEXEC: &str = "libexec/spark-trace";

/// Where systemd looks for units of packages, below /usr.
const UNIT: &str = "lib/systemd/system/spark-trace.service";

pub const PACKAGES: &[Package] = &[
    Package {
        name: "spark-trace",
        synopsis: "show what uses the memory, with counters and eBPF",
        description: &[
            "spark-trace records a run of a command or a container from its first instruction: how much memory every \
             source uses, from the kernel's counters, and who took it, by which path and when, from eBPF programs. It \
             shows what uses the memory, compares two recordings, and prints what it cannot explain.",
            "It is made for machines whose GPU shares the system's memory, such as DGX Spark, and follows allocations \
             through the CUDA driver and NVIDIA's kernel modules. Recording needs root and a kernel with BTF.",
        ],
        relations: &[("Suggests", "spark-trace-workload")],
        linked: "",
        crates: &["spark-trace", "spark-trace-ebpf"],
        fill: |tree, parts| {
            tree.program("bin/spark-trace", read(&parts.built.spark_trace)?);
            for (path, content) in &parts.documents {
                tree.data(path, content.clone());
            }
            // Not enabled by the package: who installs it decides what runs.
            tree.data(UNIT, read(&workspace::root().join("packaging/spark-trace.service"))?);
            let dashboard = read(&workspace::root().join("docs/grafana-dashboard.json"))?;
            tree.data("share/doc/spark-trace/grafana-dashboard.json", dashboard);
            for name in [
                "README.md",
                "docs/limits.md",
                "docs/recording.md",
                "docs/reference/recording-fields.md",
                "docs/reference/sources.md",
                "docs/cuda.md",
                "docs/fleet.md",
            ] {
                let file = name.rsplit('/').next().unwrap_or(name);
                let content = read(&workspace::root().join(name))?;
                tree.data(&format!("share/doc/spark-trace/{file}.gz"), gzip(&content)?);
            }
            Ok(())
        },
        overrides: &[],
    },
    Package {
        name: "spark-trace-workload",
        synopsis: "take known amounts of known kinds of memory",
        description: &[
            "Reference workloads for spark-trace: anonymous and shared memory, page cache, memory of the kernel, and \
             memory through the CUDA driver, in amounts that are known exactly. Linked statically, it runs in an empty \
             container image. `spark-trace demo` records it.",
            "In /usr/libexec/spark-trace there is another build that can load a CUDA driver, and beside it a simulated \
             CUDA driver for machines without a GPU.",
        ],
        relations: &[("Enhances", "spark-trace")],
        linked: " /usr/bin/spark-trace-workload also contains the GNU C Library (LGPL-2.1-or-later) of the system it was\n \
                 built on; to use another one, link it again from the sources.\n",
        crates: &["spark-trace-workload", "spark-trace-simulated-cuda"],
        fill: |tree, parts| {
            tree.program("bin/spark-trace-workload", read(&parts.built.workload)?);
            // Beside each other: there the workload looks for the simulated driver.
            let cuda = &parts.cuda;
            tree.program(&format!("{LIBEXEC}/spark-trace-workload"), read(&cuda.workload)?);
            tree.data(&format!("{LIBEXEC}/libspark_trace_simulated_cuda.so"), read(&cuda.simulated_driver)?);
            Ok(())
        },
        overrides: &[
            ("it runs in empty images", "statically-linked-binary [usr/bin/spark-trace-workload]"),
            (
                "traces show names of its functions",
                "unstripped-binary-or-object [usr/bin/spark-trace-workload]",
            ),
            ("the same", "unstripped-binary-or-object [usr/libexec/spark-trace/spark-trace-workload]"),
            (
                "the same",
                "unstripped-binary-or-object [usr/libexec/spark-trace/libspark_trace_simulated_cuda.so]",
            ),
        ],
    },
];

impl Package {
    /// Everything that it holds, below /usr.
    pub fn tree(&self, parts: &Parts, release: &Release) -> Result<Tree> {
        let mut tree = Tree::default();
        (self.fill)(&mut tree, parts)?;
        for (path, content) in documents::of_a_package(self.name, self.linked, release)? {
            tree.data(&path, content);
        }
        let notices = third_party::notices(self.crates, parts.arch)?;
        tree.data(&format!("share/doc/{}/third-party.txt.gz", self.name), gzip(notices.as_bytes())?);
        Ok(tree)
    }

    /// For lintian: a file in Debian's packages only.
    pub fn overrides(&self) -> Option<(String, Vec<u8>)> {
        let lines = self.overrides.iter().map(|(why, what)| format!("# {why}\n{}: {what}\n", self.name));
        let text = lines.collect::<String>();
        let path = format!("share/lintian/overrides/{}", self.name);
        (!text.is_empty()).then(|| (path, text.into_bytes()))
    }

    pub fn control(&self, tree: &Tree, arch: Arch, release: &Release) -> Result<Control> {
        let mut needs = Needs::default();
        for (path, file) in tree.0.iter().filter(|(_, file)| file.content.starts_with(b"\x7fELF")) {
            needs = needs.and(Needs::of(&file.content).with_context(|| format!("cannot read {path}"))?);
        }
        let mut relations = vec![("Depends", needs.depends().with_context(|| self.name)?)];
        relations.extend(self.relations.iter().map(|(field, value)| (*field, (*value).to_owned())));
        relations.extend(release.homepage.iter().map(|homepage| ("Homepage", homepage.clone())));
        Ok(Control {
            package: self.name.to_owned(),
            version: release.debian_version(),
            architecture: arch.names().debian,
            maintainer: release.maintainer.clone(),
            relations,
            synopsis: self.synopsis,
            description: self.description,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_what_is_in_the_package() {
        let unit = read(&workspace::root().join("packaging/spark-trace.service")).unwrap();
        let unit = String::from_utf8(unit).unwrap();
        assert!(unit.lines().any(|line| line == "ExecStart=/usr/bin/spark-trace serve"), "{unit}");
        for line in ["StateDirectory=spark-trace", "NoNewPrivileges=yes", "WantedBy=multi-user.target"] {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn packages_say_what_they_are_in_a_line() {
        for package in PACKAGES {
            assert!(package.synopsis.len() < 80, "{}", package.name);
            assert!(!package.synopsis.ends_with('.') && !package.description.is_empty(), "{}", package.name);
        }
    }

    #[test]
    fn remarks_for_lintian_are_about_the_package() {
        let (path, text) = PACKAGES[1].overrides().unwrap();
        assert_eq!(path, "share/lintian/overrides/spark-trace-workload");
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), PACKAGES[1].overrides.len());
        assert!(lines.iter().all(|line| line.starts_with("spark-trace-workload: ")), "{text}");
        assert!(PACKAGES[0].overrides().is_none());
    }
}
