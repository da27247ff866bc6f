//! Links between documents: a file that moves, or a heading that changes, must not leave dead ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::words::files;
use crate::workspace;

/// Documents, and folders of them.
const DOCUMENTS: &[&str] = &["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "results"];

const RESULTS: &str = "results/README.md";

pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut documents = BTreeMap::new();
    for path in files(&root, DOCUMENTS, "md")? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        documents.insert(path, text);
    }
    let dead = dead(&documents, &|path| path.exists());
    if !dead.is_empty() {
        bail!("{} links lead nowhere:\n{}", dead.len(), dead.join("\n"));
    }
    let results = documents.get(&root.join(RESULTS)).map_or("", String::as_str);
    let folders = documents.keys().filter(|path| path.ends_with("README.md")).filter_map(|path| {
        path.strip_prefix(root.join(RESULTS).parent()?).ok().filter(|inside| inside.components().count() == 2)
    });
    let unlisted = unlisted(results, folders);
    if !unlisted.is_empty() {
        bail!("{RESULTS} does not list {}", unlisted.join(", "));
    }
    println!("links of {} documents lead somewhere", documents.len());
    Ok(())
}

/// Readme files of results that the list of results does not lead to.
fn unlisted<'a>(list: &str, readmes: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let listed: Vec<&str> = list.lines().flat_map(links).collect();
    let names = readmes.map(|readme| readme.display().to_string());
    names.filter(|name| !listed.contains(&name.as_str())).collect()
}

/// Links to files that do not exist, or to headings that their document does not have.
fn dead(documents: &BTreeMap<PathBuf, String>, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, Vec<String>> = documents
        .iter()
        .map(|(path, text)| (path.as_path(), prose(text).filter_map(anchor).collect()))
        .collect();
    let mut dead = Vec::new();
    for (path, text) in documents {
        for link in prose(text).flat_map(links).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = path.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { path.clone() } else { resolved(&folder.join(file)) };
            let leads_somewhere = match anchors.get(target.as_path()) {
                Some(anchors) => heading.is_empty() || anchors.iter().any(|anchor| anchor == heading),
                None => exists(&target),
            };
            if !leads_somewhere {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    dead
}

/// Without `..`, which need not exist as a folder of the way.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = resolved.pop(),
            Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    resolved
}

/// Lines outside blocks of code.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    document.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    })
}

/// What stands between `](` and `)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The name that GitHub gives to a heading.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_and_headings_that_are_not_there_are_dead() {
        let a = "# A `b[]`: c\n[x](b.md) [y](sub/../b.md#two-words) [z](#a-b-c) [w](https://x.org/#no)\n\
                 ```\n# no heading\n[code](no.md)\n```\n[1](no.md) [2](b.md#no) [3](#no-heading) [4](d/file.txt)\n";
        let documents = BTreeMap::from([
            (PathBuf::from("/r/a.md"), a.to_owned()),
            (PathBuf::from("/r/b.md"), "## Two words\n".to_owned()),
        ]);
        let exists = |path: &Path| path == Path::new("/r/d/file.txt");
        let expected = ["no.md", "b.md#no", "#no-heading"].map(|link| format!("/r/a.md: {link}"));
        assert_eq!(dead(&documents, &exists), expected);
    }

    #[test]
    fn every_folder_of_results_is_in_their_list() {
        let list = "| [a](a/README.md) | x |\n";
        let readmes = ["a/README.md", "b/README.md"].map(Path::new);
        assert_eq!(unlisted(list, readmes.into_iter()), ["b/README.md"]);
    }
}
