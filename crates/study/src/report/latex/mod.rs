//! For papers: tables that can be taken over, and a document that has them all.

mod paper;
mod tables;

use std::fmt::Write as _;

use spark_trace_render::escape;

pub use paper::{environment, render as paper};
pub use tables::render;

/// Nothing in a name is a command, and every character is one that a plain LaTeX knows.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    // What is invisible or turns the direction of text is written as an escape.
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for c in escape::line(&plain).chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            '\u{2212}' => out.push_str("$-$"),
            '≤' => out.push_str("$\\le$"),
            '≥' => out.push_str("$\\ge$"),
            '…' => out.push_str("\\ldots{}"),
            'µ' | 'μ' => out.push_str("$\\mu$"),
            '–' => out.push_str("--"),
            // A quote, and not the accent that follows in some encodings.
            '"' => out.push_str("''"),
            '`' => out.push_str("\\textasciigrave{}"),
            // Two of them would be a dash.
            '-' => out.push_str("-{}"),
            '<' | '>' | '|' => write!(out, "${c}$").unwrap_or_default(),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_ascii() || ('\u{c0}'..='\u{17f}').contains(&c) => out.push(c),
            c => write!(out, "[U+{:04X}]", u32::from(c)).unwrap_or_default(),
        }
    }
    out
}

/// A number with so many decimals; its minus is one.
fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "--".to_owned();
    }
    let text = format!("{value:.decimals$}");
    // Nothing is smaller than nothing.
    let zero = text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.');
    format!("${}$", if zero { text.trim_start_matches('-') } else { &text })
}

/// The same with its sign.
fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    if value > 0.0 { text.replacen('$', "$+", 1) } else { text }
}

/// A p, in math mode without its dollars.
fn p_value(p: f64) -> String {
    match p {
        p if p >= 1e-4 => format!("{p:.4}"),
        p if p > 0.0 => {
            let text = format!("{p:.1e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{digits} \\times 10^{{{power}}}")
        }
        _ => "0".to_owned(),
    }
}

/// What `\label` and `\ref` name: no name of a model may break it.
fn label(parts: &[&str]) -> String {
    let plain = |text: &&str| -> String {
        text.chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
            .collect()
    };
    parts.iter().map(plain).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_inert() {
        assert_eq!(escaped("a_b & 5 % \\input{x}"), "a\\_b \\& 5 \\% \\textbackslash{}input\\{x\\}");
        assert_eq!(escaped("1\n2"), "1 2");
        assert_eq!(escaped("a\u{202e}b"), "a\\textbackslash{}u\\{202e\\}b");
        assert_eq!(escaped("é \u{4e2d} a--b"), "é [U+4E2D] a-{}-{}b");
        assert_eq!(label(&["tab", "m}\\x", "b_c"]), "tab:m--x:b-c");
    }

    #[test]
    fn numbers_have_a_minus_and_their_digits() {
        assert_eq!(
            (fixed(-1.5, 2), fixed(-0.001, 2), fixed(f64::NAN, 2)),
            ("$-1.50$".into(), "$0.00$".into(), "--".into())
        );
        assert_eq!((signed(3.0, 1), signed(-3.0, 1)), ("$+3.0$".into(), "$-3.0$".into()));
        assert_eq!((p_value(0.04), p_value(2.34e-18)), ("0.0400".into(), "2.3 \\times 10^{-18}".into()));
    }
}
