//! Text for a locale that has ASCII alone.

/// Signs of our own, and what stands for each: one character, so that columns stay as they are.
const SIGNS: &[(&str, char)] = &[
    ("…", '~'),
    ("★", '*'),
    ("▼", 'v'),
    ("▲", '^'),
    ("◆", '+'),
    ("●", 'o'),
    ("→", '>'),
    ("±", '+'),
    ("·", '.'),
    ("–", '-'),
    ("─", '-'),
    ("┤│└┘┌┐", '|'),
    ("✔", 'y'),
    ("✘", 'n'),
    ("▁", '_'),
    ("▂▃", '.'),
    ("▄▅", '-'),
    ("▆▇", '='),
    ("█", '@'),
    ("▓", '&'),
    ("▒", ':'),
    ("░", '.'),
];
/// Stands for any other character, as `ls` has it.
const OTHER: char = '?';

/// `text` with one ASCII character for each character that is none.
pub fn of(text: &str) -> String {
    let sign = |c: char| SIGNS.iter().find(|(signs, _)| signs.contains(c)).map_or(OTHER, |&(_, ascii)| ascii);
    text.chars().map(|c| if c.is_ascii() { c } else { sign(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_is_left_and_columns_stay() {
        assert_eq!(of("…/größe  █░ ★"), "~/gr??e  @. *");
        assert_eq!(of("plain\n"), "plain\n");
    }
}
