//! A command line in one argument, split into words as a shell splits it. Nothing is expanded, and nothing that a shell would do
//! beyond that is passed over: it is refused.

/// Outside of quotes a shell does something with these.
const SPECIAL: &str = "|&;<>()$`*?[";
/// The same at the head of a word alone.
const AT_HEAD: &str = "#~";
/// Within double quotes.
const IN_QUOTES: &str = "$`";

/// The words of `line`; why they are not known, in a sentence.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = vec![];
    // Absent between words: an empty word is one all the same.
    let mut word: Option<String> = None;
    let mut rest = line.trim().chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => return Err("it has several lines: put them into a script, and name that".to_owned()),
            c if c.is_whitespace() => words.extend(word.take()),
            '\\' => match rest.next() {
                None => return Err("it ends with a backslash".to_owned()),
                // The line goes on.
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' => quoted(&mut rest, word.get_or_insert_default())?,
            '"' => double_quoted(&mut rest, word.get_or_insert_default())?,
            c if SPECIAL.contains(c) || word.is_none() && AT_HEAD.contains(c) => return Err(special(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() { Err("it is empty".to_owned()) } else { Ok(words) }
}

fn quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    for c in rest {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err("a quote has no end".to_owned())
}

fn double_quoted(rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok(()),
            c if IN_QUOTES.contains(c) => return Err(special(c)),
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                // A shell leaves it there.
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err("a quote has no end".to_owned())
}

fn special(c: char) -> String {
    format!(
        "`{c}` is for a shell, and none runs it: put the command into a script and name that, or quote `{c}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell itself is the judge.
    fn by_shell(line: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{line}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.strip_suffix('\0').unwrap_or_default().split('\0').map(str::to_owned).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for line in [
            "docker run --rm -v /a:/b image:tag sh -c 'echo one; echo \"two\"'",
            "  a\\ b  'c d'e\"f g\"  '' \"\" x",
            r#"python3 -c "print(\"a\", 'b', \"\\\\\", \"\q\")""#,
            "docker run --rm \\\n  --gpus all \\\n  image",
            r#"vllm serve --compilation-config '{"level": 3}' a=b c#d e~f"#,
            "\"a\\\nb\" é",
        ] {
            assert_eq!(split(line).unwrap(), by_shell(line), "{line}");
        }
    }

    #[test]
    fn what_a_shell_would_do_is_refused() {
        for line in [
            "a | b",
            "a && b",
            "a; b",
            "a > b",
            "$HOME/run",
            "\"$HOME\"",
            "`pwd`",
            "ls *.py",
            "~/run.sh",
            "a # b",
            "(a)",
            "a\nb",
            "'a",
            "\"a",
            "a\\",
            "",
            "  ",
            "\"a\\",
        ] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
