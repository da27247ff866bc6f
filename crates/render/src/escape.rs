//! Makes names from outside inert: paths, command names, arguments and symbols are data that
//! anyone on the machine can choose.

use std::fmt::Write;

/// Characters that begin a formula in a spreadsheet, and what East Asian editions take for them; control characters do
/// too, but none is left.
const FORMULA: &[char] = &['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Characters that mean something to Markdown or to the HTML in it.
const MARKUP: &[char] =
    &['\\', '`', '*', '_', '[', ']', '<', '>', '|', '#', '~', '!', '&', '$', '@', '{', '}'];

/// Text in one line that a terminal cannot take as a command: control characters and those that
/// are invisible or turn the direction of text are written as escapes.
pub fn line(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) {
            // Writing to a String cannot fail.
            let _ = write!(inert, "{}", c.escape_default());
        } else {
            inert.push(c);
        }
    }
    inert
}

/// The same in a way that can be undone, so that two texts never become one: as in an address, `%` and two digits for each
/// byte, and for `%` itself.
pub fn percent(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) || c == '%' {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(inert, "%{byte:02X}");
            }
        } else {
            inert.push(c);
        }
    }
    inert
}

/// A line of Markdown without markup.
pub fn markdown(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    let text = line(text);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        // A colon begins an emoji (`:name:`) or is part of an address (`scheme://`); before a blank it is neither.
        let joins = c == ':' && characters.peek().is_some_and(|next| !next.is_whitespace());
        if joins || MARKUP.contains(&c) {
            inert.push('\\');
        }
        inert.push(c);
    }
    inert
}

/// The same for words of our own, in which what stands between backticks is code: nothing in code is markup.
pub fn markdown_with_code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let pairs = (parts.len() - 1) / 2;
    let mut inert = String::with_capacity(text.len());
    for (index, part) in parts.iter().enumerate() {
        let is_code = index % 2 == 1 && index < 2 * pairs;
        if index > 0 {
            // One that is left over is a character.
            inert.push_str(if index <= 2 * pairs { "`" } else { "\\`" });
        }
        inert.push_str(&if is_code { line(part) } else { markdown(part) });
    }
    inert
}

/// Text that HTML, or SVG in it, takes as text: between tags and in quoted attributes.
pub fn html(text: &str) -> String {
    let mut inert = String::with_capacity(text.len());
    for c in line(text).chars() {
        match c {
            '&' => inert.push_str("&amp;"),
            '<' => inert.push_str("&lt;"),
            '>' => inert.push_str("&gt;"),
            '"' => inert.push_str("&quot;"),
            '\'' => inert.push_str("&#39;"),
            _ => inert.push(c),
        }
    }
    inert
}

/// A cell of a CSV file that a spreadsheet takes as text.
pub fn csv(text: &str) -> String {
    let text = line(text);
    // Some drop blanks before they look.
    let text = if text.trim_start().starts_with(FORMULA) { format!("'{text}") } else { text };
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terminal_commands_become_visible() {
        assert_eq!(line("\x1b[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(line("evil\u{202e}gpj.exe"), "evil\\u{202e}gpj.exe");
        assert_eq!(line("/srv/größe/模型"), "/srv/größe/模型");
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(markdown("a|b<script>`x`"), "a\\|b\\<script\\>\\`x\\`");
        assert_eq!(markdown("[x](http://e)"), "\\[x\\](http\\://e)");
        assert_eq!(markdown(":skull: grew by 1: more:"), "\\:skull: grew by 1: more:");
    }

    #[test]
    fn code_is_not_escaped_and_what_is_around_it_is() {
        for (text, inert) in [
            ("`drop_caches` of a_b", "`drop_caches` of a\\_b"),
            ("`a` and `b`", "`a` and `b`"),
            ("one ` alone_", "one \\` alone\\_"),
            ("`a_` ` _", "`a_` \\` \\_"),
            ("plain_", "plain\\_"),
        ] {
            assert_eq!(markdown_with_code(text), inert);
        }
    }

    #[test]
    fn formulas_are_text() {
        assert_eq!(csv("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(csv("-2+3,\"x\""), "\"'-2+3,\"\"x\"\"\"");
        assert_eq!((csv(" =cmd()"), csv("＝cmd()")), ("' =cmd()".to_owned(), "'＝cmd()".to_owned()));
        assert_eq!(csv("plain"), "plain");
    }

    #[test]
    fn a_name_with_a_tab_is_not_one_with_a_backslash() {
        assert_eq!(percent("a\tb"), "a%09b");
        assert_eq!(percent("a\\tb"), "a\\tb");
        assert_eq!(percent("a%09b"), "a%2509b");
        assert_eq!(percent("\u{202e}"), "%E2%80%AE");
    }

    proptest! {
        #[test]
        fn what_is_percent_encoded_can_be_read_back(text in "\\PC*|[\\x00-\\x1f%\\\\a09]*|.*") {
            let inert = percent(&text);
            prop_assert!(!inert.chars().any(is_active));
            let mut bytes = Vec::new();
            let mut rest = inert.as_str();
            while let Some((before, after)) = rest.split_once('%') {
                bytes.extend_from_slice(before.as_bytes());
                bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            bytes.extend_from_slice(rest.as_bytes());
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
        }

        #[test]
        fn nothing_active_is_left(text in "\\PC*|[\\x00-\\x1f=+@|,\"]*|.*") {
            for inert in [line(&text), markdown(&text), csv(&text), html(&text)] {
                prop_assert!(!inert.chars().any(is_active));
            }
            prop_assert!(!html(&text).contains(['<', '>', '"', '\'']));
            let cell = csv(&text);
            let value = cell.strip_prefix('"').unwrap_or(&cell);
            prop_assert!(!value.trim_start().starts_with(FORMULA));
        }
    }
}
