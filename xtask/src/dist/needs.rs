//! What a program needs of the system it is installed on: shared libraries, and versions of their symbols.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, VER_FLG_WEAK};
use object::read::elf::{Dyn, FileHeader};

/// A library that programs may need, as the linker calls it, and where it is in Debian and Ubuntu.
struct Library {
    soname: &'static str,
    package: &'static str,
    /// What its symbol versions begin with.
    symbols: &'static str,
    /// The newest version that we may need: one of an older system.
    newest: Version,
}

/// Of Ubuntu 24.04, which DGX OS 7 is made from. A build on a newer system may need more.
const GLIBC: Version = Version([2, 39, 0]);

/// GCC 13, of the same.
const GCC: Version = Version([13, 0, 0]);

const LIBRARIES: &[Library] = &[
    Library { soname: "libc.so.6", package: "libc6", symbols: "GLIBC_", newest: GLIBC },
    Library { soname: "libm.so.6", package: "libc6", symbols: "GLIBC_", newest: GLIBC },
    Library { soname: "ld-linux-x86-64.so.2", package: "libc6", symbols: "GLIBC_", newest: GLIBC },
    Library { soname: "ld-linux-aarch64.so.1", package: "libc6", symbols: "GLIBC_", newest: GLIBC },
    Library { soname: "libgcc_s.so.1", package: "libgcc-s1", symbols: "GCC_", newest: GCC },
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Version([u32; 3]);

impl Version {
    /// `2.34`, `4.2.0`.
    fn parse(text: &str) -> Option<Self> {
        let mut version = Self::default();
        for (index, number) in text.split('.').enumerate() {
            *version.0.get_mut(index)? = number.parse().ok()?;
        }
        Some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}")?;
        if *patch > 0 { write!(f, ".{patch}") } else { Ok(()) }
    }
}

/// Libraries by name with the versions that are needed of each; empty where none is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs(BTreeMap<String, Vec<String>>);

impl Needs {
    /// Of a program or a library. A static program needs nothing.
    pub fn of(elf: &[u8]) -> Result<Self> {
        let mut needs = BTreeMap::<String, Vec<String>>::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = FileHeader64::<Endianness>::parse(elf).context("not a 64-bit ELF file")?;
        let endian = header.endian()?;
        let sections = header.sections(endian, elf)?;
        if let Some((entries, link)) = sections.dynamic(endian, elf)? {
            let strings = sections.strings(endian, elf, link)?;
            for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
                needs.entry(text(entry.string(endian, strings)?)).or_default();
            }
        }
        if let Some((mut libraries, link)) = sections.gnu_verneed(endian, elf)? {
            let strings = sections.strings(endian, elf, link)?;
            while let Some((library, mut versions)) = libraries.next()? {
                let of = needs.entry(text(library.file(endian, strings)?)).or_default();
                while let Some(version) = versions.next()? {
                    // What is only used where it exists.
                    if version.vna_flags.get(endian) & VER_FLG_WEAK == 0 {
                        of.push(text(version.name(endian, strings)?));
                    }
                }
            }
        }
        Ok(Self(needs))
    }

    pub fn and(mut self, other: Self) -> Self {
        for (library, versions) in other.0 {
            self.0.entry(library).or_default().extend(versions);
        }
        self
    }

    /// The field Depends; an error where it is more than the systems have that packages are made for.
    pub fn depends(&self) -> Result<String> {
        let mut packages = BTreeMap::<&str, Version>::new();
        for (soname, versions) in &self.0 {
            let library = LIBRARIES.iter().find(|library| library.soname == soname).with_context(|| {
                format!("{soname} is needed, and in no package that is known: add it to dist/needs.rs")
            })?;
            let newest = packages.entry(library.package).or_default();
            for symbols in versions {
                let version = symbols.strip_prefix(library.symbols).and_then(Version::parse);
                let Some(version) = version else { bail!("{symbols} of {soname} is no version") };
                ensure!(
                    version <= library.newest,
                    "{symbols} of {soname} is needed, but Ubuntu 24.04 has {} at most: build on an older system",
                    library.newest
                );
                *newest = version.max(*newest);
            }
        }
        let depends = packages.iter().map(|(package, version)| match *version == Version::default() {
            true => (*package).to_owned(),
            false => format!("{package} (>= {version})"),
        });
        Ok(depends.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(libraries: &[(&str, &[&str])]) -> Needs {
        let owned = |versions: &[&str]| versions.iter().map(|&version| version.to_owned()).collect();
        Needs(libraries.iter().map(|(library, versions)| ((*library).to_owned(), owned(versions))).collect())
    }

    #[test]
    fn depends_names_packages_with_the_newest_version() {
        let all = needs(&[
            ("libc.so.6", &["GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.17"]),
            ("ld-linux-aarch64.so.1", &["GLIBC_2.35"]),
            ("libgcc_s.so.1", &["GCC_3.0", "GCC_4.2.0"]),
        ]);
        assert_eq!(all.depends().unwrap(), "libc6 (>= 2.35), libgcc-s1 (>= 4.2)");
        assert_eq!(needs(&[("libm.so.6", &[])]).depends().unwrap(), "libc6");
        assert_eq!(Needs::default().depends().unwrap(), "");
        let both = needs(&[("libc.so.6", &["GLIBC_2.17"])]).and(needs(&[("libc.so.6", &["GLIBC_2.33"])]));
        assert_eq!(both.depends().unwrap(), "libc6 (>= 2.33)");
    }

    #[test]
    fn what_older_systems_do_not_have_is_an_error() {
        let error = |needs: Needs| needs.depends().unwrap_err().to_string();
        let new = error(needs(&[("libc.so.6", &["GLIBC_2.40"])]));
        assert!(new.starts_with("GLIBC_2.40 of libc.so.6 is needed, but Ubuntu 24.04 has 2.39"), "{new}");
        assert!(error(needs(&[("libssl.so.3", &[])])).starts_with("libssl.so.3 is needed"));
        assert_eq!(
            error(needs(&[("libc.so.6", &["GLIBC_PRIVATE"])])),
            "GLIBC_PRIVATE of libc.so.6 is no version"
        );
    }

    #[test]
    fn this_program_needs_a_c_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = Needs::of(&own).unwrap();
        assert!(needs.0["libc.so.6"].iter().any(|version| version.starts_with("GLIBC_2.")), "{needs:?}");
        assert!(Needs::of(b"#!/bin/sh\n").is_err());
    }
}
