//! Words that docs/glossary.md bans from text that users read, and from names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::literals::{self, Kind};
use crate::workspace;

const GLOSSARY: &str = "docs/glossary.md";
/// More than a reader learns.
const MAX_TERMS: usize = 40;

/// Documents for users, and folders of them. The glossary itself names the words.
const DOCUMENTS: &[&str] = &["README.md", "docs"];
/// Folders of code whose strings are printed.
const PRINTED: &[&str] = &["crates", "spark-trace/src", "xtask/src"];
/// Code whose names have none of the words either.
const NAMES: &[&str] = &[
    "crates/common",
    "crates/ebpf-build",
    "crates/engines",
    "crates/host",
    "crates/recording",
    "crates/render",
    "crates/statistics",
    "crates/study",
    "crates/testing",
    "spark-trace/src",
    "spark-trace-ebpf/src",
    "testing",
    "xtask/src",
];
/// Code whose doc comments are printed: --help and manual pages.
const HELP: &[&str] = &["spark-trace/src/cli"];

pub fn check() -> Result<()> {
    let root = workspace::root();
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let banned = banned(&read(&root.join(GLOSSARY))?)?;
    let mut found = Vec::new();
    let mut note = |path: &Path, line: usize, text: &str| {
        let path = path.strip_prefix(&root).unwrap_or(path);
        found.extend(words_of(text, &banned).map(|word| format!("{}:{line}: `{word}`", path.display())));
    };
    for path in files(&root, DOCUMENTS, "md")? {
        if path.ends_with(GLOSSARY) {
            continue;
        }
        for (line, text) in prose(&read(&path)?) {
            note(&path, line, &text);
        }
    }
    let is_below = |path: &Path, dirs: &[&str]| dirs.iter().any(|dir| path.starts_with(root.join(dir)));
    let all: BTreeSet<_> =
        files(&root, PRINTED, "rs")?.into_iter().chain(files(&root, NAMES, "rs")?).collect();
    for path in all.into_iter().filter(|path| !is_test(path)) {
        let texts = literals::of(&read(&path)?).with_context(|| format!("cannot read {}", path.display()))?;
        for literal in texts {
            let dirs = match literal.kind {
                Kind::Text => PRINTED,
                Kind::Comment => HELP,
                Kind::Name => NAMES,
            };
            if is_below(&path, dirs) {
                note(&path, literal.line, &literal.text);
            }
        }
    }
    if !found.is_empty() {
        bail!(
            "{} words that {GLOSSARY} bans from names and from text that users read:\n{}",
            found.len(),
            found.join("\n")
        );
    }
    println!("{GLOSSARY}: none of {} banned words is in use", banned.len());
    Ok(())
}

/// Words in backticks in the last column of the glossary's table.
fn banned(glossary: &str) -> Result<Vec<String>> {
    let rows: Vec<_> = glossary.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    ensure!(rows.len() <= MAX_TERMS, "{GLOSSARY} has {} terms, {MAX_TERMS} at most", rows.len());
    let last = rows.iter().filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    let words: Vec<_> =
        last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_lowercase).collect();
    ensure!(!words.is_empty(), "{GLOSSARY} bans no word");
    Ok(words)
}

fn words_of<'a>(text: &str, banned: &'a [String]) -> impl Iterator<Item = &'a String> {
    let text: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { ' ' })
        .collect();
    let text = format!(" {} ", text.split_whitespace().collect::<Vec<_>>().join(" "));
    banned.iter().filter(move |word| text.contains(&format!(" {} ", word.to_lowercase())))
}

/// Lines of a document without code: neither `spans` nor blocks of JSON, whose keys are names.
fn prose(document: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut in_json = false;
    for (index, line) in document.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_json = language.starts_with("json");
        } else if !in_json {
            lines.push((index + 1, line.split('`').step_by(2).collect::<Vec<_>>().join(" ")));
        }
    }
    lines
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        matches!(part.as_ref(), "tests" | "tests.rs" | "testing" | "testing.rs")
            || part.ends_with("_tests.rs")
    })
}

/// Files below `dirs` (or the files that they are) with this extension.
pub fn files(root: &Path, dirs: &[&str], extension: &str) -> Result<Vec<PathBuf>> {
    let mut open: Vec<_> = dirs.iter().map(|dir| root.join(dir)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
            for entry in entries {
                open.push(entry?.path());
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOSSARY: &str =
        "# G\n\n| term | meaning | instead of |\n|---|---|---|\n| a | One `x`. | `of Equals`, b |\n";

    #[test]
    fn the_last_column_bans_words_and_phrases() {
        let banned = banned(GLOSSARY).unwrap();
        assert_eq!(banned, ["of equals"]);
        assert_eq!(words_of("The first, of\n equals.", &banned).count(), 1);
        assert_eq!(words_of("a set of equalsigns", &banned).count(), 0);
        assert!(super::banned("# G\n").is_err());
    }

    #[test]
    fn code_is_not_prose() {
        let lines = prose("a `asked` b\n```json\n{\"asked\": 1}\n```\n```console\ntold\n```\n");
        assert_eq!(lines, [(1, "a   b".to_owned()), (6, "told".to_owned())]);
    }
}
