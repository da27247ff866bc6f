//! String literals, doc comments and names of a Rust file, without those of its tests.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string that a program may print.
    Text,
    /// `///` or `//!`.
    Comment,
    /// An identifier, as words.
    Name,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Literal {
    pub kind: Kind,
    pub line: usize,
    pub text: String,
}

pub fn of(source: &str) -> Result<Vec<Literal>> {
    let tokens: TokenStream = source.parse().map_err(|error| anyhow!("no Rust: {error}"))?;
    let mut found = Vec::new();
    walk(tokens, &mut found);
    Ok(found)
}

fn walk(tokens: TokenStream, found: &mut Vec<Literal>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut skip_next_body = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                // `#![...]` has one mark more.
                if matches!(tokens.peek(), Some(TokenTree::Punct(mark)) if mark.as_char() == '!') {
                    tokens.next();
                }
                let Some(TokenTree::Group(group)) = tokens.next() else { continue };
                let attribute = group.stream().to_string().replace(' ', "");
                if attribute.starts_with("doc=") {
                    strings(group.stream(), Kind::Comment, found);
                } else if attribute == "cfg(test)" || attribute == "test" {
                    skip_next_body = true;
                } else {
                    walk(group.stream(), found);
                }
            }
            TokenTree::Group(group) => {
                let is_body = group.delimiter() == Delimiter::Brace;
                if !(skip_next_body && is_body) {
                    walk(group.stream(), found);
                }
                skip_next_body &= !is_body;
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => skip_next_body = false,
            TokenTree::Literal(_) => strings(token.into(), Kind::Text, found),
            TokenTree::Ident(name) => {
                let line = name.span().start().line;
                found.push(Literal { kind: Kind::Name, line, text: words(&name.to_string()) });
            }
            TokenTree::Punct(_) => {}
        }
    }
}

fn strings(tokens: TokenStream, kind: Kind, found: &mut Vec<Literal>) {
    for token in tokens {
        let TokenTree::Literal(literal) = token else { continue };
        let source = literal.to_string();
        let Some((_, text)) = source.split_once('"') else { continue };
        let text = text.rsplit_once('"').map_or(text, |(text, _)| text);
        if kind == Kind::Comment || is_sentence(text) {
            let text = plain(text);
            found.push(Literal { kind, line: literal.span().start().line, text });
        }
    }
}

/// `memory_query` and `MemoryQuery` alike are `memory query`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(' ');
        }
        words.extend(c.to_lowercase().filter(|c| *c != '_'));
    }
    if name.chars().any(char::is_lowercase) { words } else { name.to_lowercase().replace('_', " ") }
}

/// Names of columns and JSON keys are no text for people: they have no space and no capitals.
fn is_sentence(text: &str) -> bool {
    text.trim().contains(' ') || !text.chars().any(char::is_lowercase)
}

/// Without what `format!` fills in, and without escapes.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '\\' => {
                chars.next();
                out.push(' ');
            }
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_found_and_names_and_tests_are_not() {
        let source = r##"
            //! Head.
            fn f() { let key = "asked"; println!("one {told} \
                two"); let raw = r#"a "b" c"#; let head = "TOLD"; }
            #[cfg(test)]
            use x;
            /// Help.
            #[arg(help = "of it")]
            fn g() {}
            #[cfg(test)]
            mod tests { fn h() { let s = "not this one"; } }
        "##;
        let found = of(source).unwrap();
        let texts: Vec<_> = found
            .iter()
            .filter(|literal| literal.kind != Kind::Name)
            .map(|l| (l.kind, l.line, l.text.split_whitespace().collect::<Vec<_>>().join(" ")))
            .collect();
        let expected = [
            (Kind::Comment, 2, "Head."),
            (Kind::Text, 3, "one two"),
            (Kind::Text, 4, "a \"b\" c"),
            (Kind::Text, 4, "TOLD"),
            (Kind::Comment, 7, "Help."),
            (Kind::Text, 8, "of it"),
        ];
        assert_eq!(texts, expected.map(|(kind, line, text)| (kind, line, text.to_owned())));
    }

    #[test]
    fn names_are_words() {
        let source = "fn was_told(TellsTheRest { held }: TellsTheRest) { const MOST_HELD: u8 = 1; }";
        let names: Vec<_> = of(source).unwrap().into_iter().map(|name| name.text.trim().to_owned()).collect();
        let expected =
            ["fn", "was told", "tells the rest", "held", "tells the rest", "const", "most held", "u8"];
        assert_eq!(names, expected);
    }
}
