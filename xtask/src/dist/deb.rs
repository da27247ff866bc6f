//! Debian packages: deb(5), deb-control(5).

use anyhow::{Context, Result};
use md5::{Digest, Md5};

use super::tree::{Tree, gzip};

/// What a package says of itself.
pub struct Control {
    pub package: String,
    pub version: String,
    /// Debian's name.
    pub architecture: &'static str,
    pub maintainer: String,
    /// Fields between Depends and Description, such as Suggests, in order.
    pub relations: Vec<(&'static str, String)>,
    /// One line, not a sentence.
    pub synopsis: &'static str,
    /// Paragraphs.
    pub description: &'static [&'static str],
}

impl Control {
    fn text(&self, installed_kib: usize) -> String {
        let fixed = [
            ("Package", self.package.clone()),
            ("Version", self.version.clone()),
            ("Architecture", self.architecture.to_owned()),
            ("Maintainer", self.maintainer.clone()),
            ("Installed-Size", installed_kib.to_string()),
        ];
        let last = [
            ("Section", "utils".to_owned()),
            ("Priority", "optional".to_owned()),
            ("Description", self.long()),
        ];
        let relations = self.relations.iter().filter(|(_, value)| !value.is_empty()).cloned();
        let fields = fixed.into_iter().chain(relations).chain(last);
        fields.map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    fn long(&self) -> String {
        let paragraphs = self.description.iter().map(|paragraph| wrapped(paragraph));
        let text = paragraphs.collect::<Vec<_>>().join("\n .");
        format!("{}{text}", self.synopsis)
    }
}

/// The words in lines of at most 79 characters, each after a line break and a blank.
fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut room = 0;
    for word in paragraph.split_whitespace() {
        if room < word.len() + 1 {
            text.push('\n');
            room = 79;
        }
        text.push(' ');
        text.push_str(word);
        room -= word.len() + 1;
    }
    text
}

/// File name of a package.
pub fn name(control: &Control) -> String {
    format!("{}_{}_{}.deb", control.package, control.version, control.architecture)
}

/// The package: an ar archive of a version and two compressed tar archives.
pub fn package(control: &Control, tree: &Tree, time: u64) -> Result<Vec<u8>> {
    let mut about = Tree::default();
    about.data("control", control.text(tree.installed_kib()).into_bytes());
    about.data("md5sums", checksums::<Md5>(tree.0.iter().map(|(path, file)| (&path[..], &file.content[..]))));
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&about.tar("./", time)?)?),
        ("data.tar.gz", gzip(&tree.tar("./", time)?)?),
    ];
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let header = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", content.len());
        // Fields are as wide as they are: a longer value would move the next ones.
        let header = Some(header.into_bytes()).filter(|header| header.len() == 60);
        archive.extend(header.with_context(|| format!("{name} does not fit into a package"))?);
        archive.extend(&content);
        if content.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}

/// Lines as md5sum and sha256sum print them.
pub fn checksums<'a, D: Digest>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let hex = |content| D::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    files.map(|(name, content)| format!("{}  {name}\n", hex(content))).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Control {
        Control {
            package: "p".to_owned(),
            version: "1.0-1".to_owned(),
            architecture: "arm64",
            maintainer: "a <a@b.org>".to_owned(),
            relations: vec![("Depends", "libc6 (>= 2.34)".to_owned()), ("Suggests", String::new())],
            synopsis: "a thing",
            description: &["One two.", "Three."],
        }
    }

    #[test]
    fn control_has_its_fields_in_order() {
        let expected = "Package: p\nVersion: 1.0-1\nArchitecture: arm64\nMaintainer: a <a@b.org>\nInstalled-Size: 7\n\
                        Depends: libc6 (>= 2.34)\nSection: utils\nPriority: optional\nDescription: a thing\n One two.\n \
                        .\n Three.\n";
        assert_eq!(control().text(7), expected);
    }

    #[test]
    fn long_paragraphs_are_wrapped() {
        let text = wrapped(&"word ".repeat(40));
        assert!(text.split('\n').all(|line| line.len() <= 79), "{text}");
        assert_eq!(text.split_whitespace().count(), 40);
        assert!(text.split('\n').skip(1).all(|line| line.starts_with(" word")), "{text}");
    }

    #[test]
    fn a_package_is_an_archive_of_three_members() {
        let mut tree = Tree::default();
        tree.program("usr/bin/p", b"x".to_vec());
        let bytes = package(&control(), &tree, 1_700_000_000).unwrap();
        assert_eq!(bytes, package(&control(), &tree, 1_700_000_000).unwrap());
        let mut rest = bytes.strip_prefix(b"!<arch>\n").unwrap();
        let mut names = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.split_at(60);
            let field = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).unwrap().trim();
            assert_eq!((field(16, 28), field(58, 59)), ("1700000000", "`"));
            names.push(field(0, 16).to_owned());
            let size: usize = field(48, 58).parse().unwrap();
            rest = &after[size + size % 2..];
        }
        assert_eq!(names, ["debian-binary", "control.tar.gz", "data.tar.gz"]);
    }

    #[test]
    fn checksums_are_those_of_md5sum() {
        let lines = checksums::<Md5>([("usr/bin/p", &b"x"[..])].into_iter());
        assert_eq!(String::from_utf8(lines).unwrap(), "9dd4e461268c8034f5c8564e155c67a6  usr/bin/p\n");
    }
}
