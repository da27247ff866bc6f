//! Passwords and tokens in command lines: a recording is handed to others, and its maker does not think of them.
//!
//! What counts is how a value is called: a variable or an option whose name has one of [`WORDS`] in it. The values of `-e`
//! and `--env`, by which container engines take variables, are never kept.

use super::entry::Entry;

/// Stands for a value.
pub const HIDDEN: &str = "<hidden>";

/// Words that say that a value is secret.
const WORDS: &[&str] = &[
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "pat",
    "pin",
    "private",
    "pwd",
    "secret",
    "secrets",
    "token",
];
/// The same as the end of a word: `hftoken`.
const ENDS: &[&str] = &["token", "password", "passwd", "secret", "apikey"];
/// A key is secret where it is what the name is about: `--api-key`, not `--key-size`.
const LAST: &[&str] = &["key", "keys"];
/// What such a name is about in fact: where a secret lies, or how large something is (`--max-token`, `--token-file`).
const ABOUT: &[&str] = &[
    "count",
    "dir",
    "directory",
    "file",
    "id",
    "length",
    "limit",
    "max",
    "min",
    "mode",
    "name",
    "num",
    "path",
    "size",
    "type",
];
/// Options that engines take variables with.
const VARIABLE_OPTIONS: &[&str] = &["-e", "--env", "--build-arg"];
/// Headers whose value is secret.
const HEADERS: &[&str] = &["authorization:", "x-api-key:", "cookie:", "bearer "];

/// Hides values in whatever has a command line.
pub fn hide_in(entry: &mut Entry) {
    match entry {
        Entry::Begin(begin) => hide(&mut begin.target.argv),
        Entry::Target(target) => hide(&mut target.argv),
        Entry::Process(process) => hide(&mut process.argv),
        _ => {}
    }
}

/// Hides values in a command line.
pub fn hide(argv: &mut [String]) {
    let mut next = Next::Plain;
    for word in argv {
        next = match next {
            // Another option: the one before has no value.
            Next::Secret if !is_option(word) => {
                HIDDEN.clone_into(word);
                Next::Plain
            }
            Next::Variable => {
                hide_variable(word);
                Next::Plain
            }
            Next::Secret | Next::Plain => hide_word(word),
        };
    }
}

/// What the next word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    /// The value of something secret.
    Secret,
    /// A variable, and its value.
    Variable,
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && !word.contains(char::is_whitespace)
}

fn hide_word(word: &mut String) -> Next {
    if word.contains(char::is_whitespace) {
        // A script, or a header: each of its words as if it stood alone.
        *word = hide_text(word);
        return Next::Plain;
    }
    if VARIABLE_OPTIONS.contains(&word.as_str()) {
        return Next::Variable;
    }
    if let Some((option, rest)) = word.split_once('=').filter(|(name, _)| VARIABLE_OPTIONS.contains(name)) {
        let mut variable = rest.to_owned();
        hide_variable(&mut variable);
        *word = format!("{option}={variable}");
        return Next::Plain;
    }
    // `-eNAME=VALUE`
    if let Some(variable) =
        word.strip_prefix("-e").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    {
        let mut variable = variable.to_owned();
        hide_variable(&mut variable);
        *word = format!("-e{variable}");
        return Next::Plain;
    }
    if let Some((name, value)) = word.split_once('=') {
        if !value.is_empty() && is_name(name) && is_secret(name) {
            *word = format!("{name}={HIDDEN}");
            return Next::Plain;
        }
    } else if is_option(word) && is_name(word) && is_secret(word) {
        return Next::Secret;
    }
    hide_user(word);
    Next::Plain
}

/// `NAME=VALUE`; without a value the engine takes its own variable.
fn hide_variable(word: &mut String) {
    if let Some((name, _)) = word.split_once('=') {
        *word = format!("{name}={HIDDEN}");
    }
}

/// The password of an address: `https://user:password@host`.
fn hide_user(word: &mut String) {
    let Some((scheme, rest)) = word.split_once("://") else { return };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return };
    let kept = user.split(':').next().unwrap_or_default();
    // A lone name before the host is a token as often as a user.
    let shown = if user.contains(':') { format!("{kept}:{HIDDEN}") } else { HIDDEN.to_owned() };
    *word = format!("{scheme}://{shown}{}", &rest[user.len()..]);
}

fn hide_text(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if let Some(end) =
        HEADERS.iter().filter_map(|header| lower.find(header).map(|at| at + header.len())).min()
    {
        return format!("{} {HIDDEN}", text[..end].trim_end());
    }
    let mut out = String::with_capacity(text.len());
    let mut next = Next::Plain;
    let mut quote = None;
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end_matches(char::is_whitespace);
        let blank = &piece[word.len()..];
        if let Some(mark) = quote {
            // The rest of a value with blanks in it.
            quote = (!word.ends_with(mark)).then_some(mark);
            continue;
        }
        if word.is_empty() {
            out.push_str(blank);
            continue;
        }
        let mut shown = word.to_owned();
        let was = next;
        next = match was {
            Next::Secret if !is_option(word) => {
                HIDDEN.clone_into(&mut shown);
                Next::Plain
            }
            Next::Variable => {
                hide_variable(&mut shown);
                Next::Plain
            }
            Next::Secret | Next::Plain => {
                // The first word within quotes: sh -c "TOKEN=x run".
                let begin = word.len() - word.trim_start_matches(['"', '\'', '(', '`', '$', ';', '{']).len();
                let mut inner = word[begin..].to_owned();
                let next = hide_word(&mut inner);
                shown = format!("{}{inner}", &word[..begin]);
                next
            }
        };
        if shown != word {
            let value =
                if was == Next::Secret { word } else { word.split_once('=').map_or("", |(_, value)| value) };
            let opened = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            quote = opened.filter(|mark| value.len() == 1 || !value.ends_with(*mark));
        }
        out.push_str(&shown);
        out.push_str(blank);
    }
    out
}

/// Of a variable or an option.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn is_secret(name: &str) -> bool {
    let words = words(name);
    let any = |all: &[&str]| words.iter().any(|word| all.contains(&word.as_str()));
    let about = words.first().into_iter().chain(words.last()).any(|word| ABOUT.contains(&word.as_str()));
    let ends = words.iter().any(|word| ENDS.iter().any(|end| word.ends_with(end)));
    let last = words.last().is_some_and(|word| LAST.contains(&word.as_str()));
    (any(WORDS) || ends || last) && !about
}

/// `--hfToken`, `HF_TOKEN` and `--hf-token` are `hf` and `token`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && before.is_ascii_lowercase();
        if (begins || !c.is_ascii_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(words: &[&str]) -> Vec<String> {
        let mut words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        hide(&mut words);
        words
    }

    #[test]
    fn no_secret_is_left() {
        for words in [
            &["docker", "run", "-e", "ANY=S3CRET", "image"][..],
            &["docker", "run", "--env", "HF_TOKEN=S3CRET", "image"],
            &["docker", "run", "--env=ANY=S3CRET", "-eANY=S3CRET", "image"],
            &["docker", "build", "--build-arg", "X=S3CRET", "."],
            &["env", "HF_TOKEN=S3CRET", "AWS_SECRET_ACCESS_KEY=S3CRET", "python3"],
            &["server", "--password", "S3CRET", "--api-key=S3CRET", "--hfToken", "S3CRET"],
            &["server", "--auth", "S3CRET", "--db.password=S3CRET", "-password", "S3CRET"],
            &[
                "curl",
                "-H",
                "Authorization: Bearer S3CRET",
                "https://ada:S3CRET@host/x",
                "https://S3CRET@host",
            ],
            &["curl", "--header", "X-Api-Key: S3CRET"],
            &["sh", "-c", "HF_TOKEN=S3CRET python3 x.py --api-key S3CRET"],
            &[
                "sh",
                "-c",
                "export TOKEN='S3CRET S3CRET' && docker run -e X=S3CRET image; PASSWORD=\"S3CRET\" run",
            ],
            &["bash", "-lc", "(MYSQL_PWD=S3CRET mysql --password 'S3CRET S3CRET' db)"],
        ] {
            let shown = hidden(words);
            assert!(!shown.join(" ").contains("S3CRET"), "{shown:?}");
            assert_eq!(shown.len(), words.len());
            assert_eq!(shown[0], words[0]);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for words in [
            &["trtllm-bench", "--max-tokens", "128", "--tokenizer", "gpt2", "--max-new-tokens=5"][..],
            &[
                "vllm",
                "serve",
                "m",
                "--max-num-batched-tokens",
                "8192",
                "--kv-cache-dtype",
                "fp8",
                "--max_token=5",
            ],
            &[
                "serve",
                "--token-file",
                "/etc/token",
                "--key-size=2048",
                "--sort-by",
                "key",
                "--num-token",
                "7",
            ],
            &["sh", "-c", "echo  a=b\t c; grep -n x=y file"],
            &["sed", "-n", "s/a=b/c/", "author=ada", "https://host/a@b", "-env", "--environment", "x=1"],
            &["python3", "-c", "print('token')", "monkey=1", "keyboard=2"],
        ] {
            assert_eq!(hidden(words), words);
        }
        // The name of what is hidden stays, and so does the rest of the line.
        assert_eq!(
            hidden(&["docker", "run", "-e", "A=b", "-e", "C", "image", "--token", "--verbose"]),
            ["docker", "run", "-e", "A=<hidden>", "-e", "C", "image", "--token", "--verbose"]
        );
        assert_eq!(hidden(&["sh", "-c", "A_TOKEN=x  run -v"])[2], "A_TOKEN=<hidden>  run -v");
        assert_eq!(hidden(&["x", "https://ada:pw@host/a?b"])[1], "https://ada:<hidden>@host/a?b");
    }
}
