//! Names of frames in collapsed stacks: `outermost;...;innermost COUNT`.

use super::escape;

/// A frame's name that cannot be taken for two frames, for a number or for a remark.
pub fn inert(frame: &str) -> String {
    let name = escape::line(frame).replace(';', ",");
    // Remarks begin with a number sign, annotations of the library end in brackets.
    let name = name.trim().trim_start_matches('#').trim_start();
    if name.is_empty() { "?".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_frame() {
        assert_eq!(inert("a;b\n"), "a,b\\n");
        assert_eq!(inert(" # remark 7"), "remark 7");
        assert_eq!((inert(""), inert(" ##")), ("?".to_owned(), "?".to_owned()));
    }
}
