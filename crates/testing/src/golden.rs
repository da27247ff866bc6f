//! Texts that are committed, and compared with what the code makes now.

use std::fs;
use std::path::Path;

/// Compares `text` with the committed file; SPARK_TRACE_BLESS=1 writes the file instead.
///
/// # Panics
///
/// Where they differ, with the first line that does.
pub fn golden(file: impl AsRef<Path>, text: &str) {
    let file = file.as_ref();
    if std::env::var_os("SPARK_TRACE_BLESS").is_some() {
        return fs::write(file, text).unwrap();
    }
    let committed = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if committed != text {
        panic!(
            "{} is stale, or the code is wrong; SPARK_TRACE_BLESS=1 writes it.\n{}",
            file.display(),
            first_difference(&committed, text)
        );
    }
}

fn first_difference(committed: &str, text: &str) -> String {
    let (mut old, mut new) = (committed.split('\n'), text.split('\n'));
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let shown =
                    |line: Option<&str>| line.map_or("(the end)".to_owned(), |line| format!("{line:?}"));
                return format!(
                    "line {number}: committed {}\n{:width$}now {}",
                    shown(old),
                    "",
                    shown(new),
                    width = format!("line {number}: ").len()
                );
            }
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_shown() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "line 2: committed \"b\"\n        now \"c\"");
        assert_eq!(first_difference("a\n", "a"), "line 2: committed \"\"\n        now (the end)");
    }

    #[test]
    fn a_text_that_differs_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text");
        fs::write(&file, "a\n").unwrap();
        golden(&file, "a\n");
        if std::env::var_os("SPARK_TRACE_BLESS").is_none() {
            std::panic::catch_unwind(|| golden(&file, "b\n")).unwrap_err();
        }
    }
}
