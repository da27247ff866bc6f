//! From pieces of output to lines, whatever the pieces.

/// Kept of a line; the rest of it is passed over.
pub(super) const LONGEST: usize = spark_trace_engines::LONGEST_LINE;

/// A stream of which the last line is not whole yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of that line.
    begun: Vec<u8>,
}

impl Lines {
    /// Hands each line that ends in `piece` to `each`. A carriage return ends one too: progress displays write over what
    /// they wrote. Lines with nothing in them are none.
    pub(super) fn feed(&mut self, piece: &[u8], mut each: impl FnMut(&str)) {
        let mut parts = piece.split(|byte| matches!(byte, b'\n' | b'\r')).peekable();
        while let Some(part) = parts.next() {
            let room = LONGEST.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(part.get(..room).unwrap_or(part));
            if parts.peek().is_some() {
                self.end(&mut each);
            }
        }
    }

    /// The same for what is left at the end of the stream: a last line needs no end.
    pub(super) fn end(&mut self, mut each: impl FnMut(&str)) {
        if !self.begun.is_empty() {
            each(&String::from_utf8_lossy(&self.begun));
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece, |line| found.push(line.to_owned()));
        }
        lines.end(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_end_where_they_end() {
        assert_eq!(lines(&[b"a\nb\r\n\n", b"c", b"d\re\n\r\nlast"]), ["a", "b", "cd", "e", "last"]);
        assert_eq!(lines(&[b"\xffa\n"]), ["\u{fffd}a"]);
        assert!(lines(&[b"", b"\n"]).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_costs_no_memory() {
        let mut long = Lines::default();
        for _ in 0..1000 {
            long.feed(&[b'x'; 1 << 13], |_| panic!("no end yet"));
        }
        assert_eq!(long.begun.len(), LONGEST);
        let mut found = Vec::new();
        long.feed(b"rest\nnext\n", |line| found.push(line.len()));
        assert_eq!(found, [LONGEST, 4]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[a-c\n\r]{0,64}", cuts in prop::collection::vec(0_usize..64, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| text.as_bytes()[cut[0]..cut[1]].as_ref()).collect();
            prop_assert_eq!(lines(&pieces), lines(&[text.as_bytes()]));
        }
    }
}
