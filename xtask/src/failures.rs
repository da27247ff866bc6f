//! What failed tests print, so that a run can end with it: thousands of lines follow a failure in the first suite.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};

/// Lines that are kept of one section: a test that prints its data must not push the others out.
const LINES: usize = 40;
/// Bytes that are kept of one line.
const LINE: usize = 2000;
/// Sections that are kept of a run.
const SECTIONS: usize = 20;

/// What the test harness prints below "failures:", one section for each failed test.
#[derive(Debug, Default)]
pub struct Failures {
    inside: bool,
    sections: Vec<Section>,
    left_out: usize,
}

#[derive(Debug)]
struct Section {
    title: String,
    /// The last ones: a panic comes after what the test prints.
    lines: VecDeque<String>,
}

impl Failures {
    /// Passes on everything that can be read, and keeps what belongs to failures.
    ///
    /// # Errors
    /// If reading or writing fails.
    pub fn copy(&mut self, from: impl Read, mut to: impl Write) -> std::io::Result<()> {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            // The name of a test is printed before its result: what is there is passed on at once.
            let available = from.fill_buf()?;
            if available.is_empty() {
                self.take(&line);
                return to.flush();
            }
            to.write_all(available)?;
            to.flush()?;
            let mut rest = available;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                extend(&mut line, &rest[..end]);
                self.take(&line);
                line.clear();
                rest = &rest[end + 1..];
            }
            extend(&mut line, rest);
            let read = available.len();
            from.consume(read);
        }
    }

    fn take(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if let Some(title) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.inside = self.sections.len() < SECTIONS;
            if self.inside {
                self.sections.push(Section { title: title.to_owned(), lines: VecDeque::new() });
            } else {
                self.left_out += 1;
            }
        } else if line == "failures:" || line.starts_with("test result:") {
            self.inside = false;
        } else if self.inside
            && let Some(section) = self.sections.last_mut()
            && !line.trim().is_empty()
        {
            if section.lines.len() == LINES {
                section.lines.pop_front();
            }
            section.lines.push_back(line.into_owned());
        }
    }

    /// Prints what was kept; nothing where no test failed.
    pub fn print(&self) {
        for section in &self.sections {
            println!("---- {} ----", section.title);
            section.lines.iter().for_each(|line| println!("{line}"));
        }
        if self.left_out > 0 {
            println!("---- {} more failed ----", self.left_out);
        }
    }
}

fn extend(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = LINE.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\ntest one ... ok\ntest a::two ... FAILED\ntest three ... FAILED\n\nfailures:\n\n\
        ---- a::two stdout ----\nprinted\n\nthread 'a::two' panicked at a.rs:1:1:\nleft: 1\n\n\
        ---- three stdout ----\nthread 'three' panicked at b.rs:1:1:\n\n\nfailures:\n    a::two\n    three\n\n\
        test result: FAILED. 1 passed; 2 failed\n";

    #[test]
    fn what_failed_tests_printed_is_kept_and_everything_is_passed_on() {
        let (mut failures, mut passed_on) = (Failures::default(), Vec::new());
        failures.copy(OUTPUT.as_bytes(), &mut passed_on).unwrap();
        assert_eq!(passed_on, OUTPUT.as_bytes());
        let kept: Vec<_> =
            failures.sections.iter().map(|section| (&section.title[..], section.lines.len())).collect();
        assert_eq!(kept, [("a::two", 3), ("three", 1)]);
        assert_eq!(failures.sections[0].lines[2], "left: 1");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_end_of_it_stays() {
        let mut failures = Failures::default();
        for test in 0..SECTIONS + 3 {
            failures.take(format!("---- test{test} stdout ----").as_bytes());
            (0..LINES + 5).for_each(|line| failures.take(format!("line {line}").as_bytes()));
        }
        assert_eq!((failures.sections.len(), failures.left_out), (SECTIONS, 3));
        let last = &failures.sections[SECTIONS - 1].lines;
        assert_eq!((last.len(), &last[LINES - 1][..]), (LINES, &format!("line {}", LINES + 4)[..]));
        let mut line = Vec::new();
        (0..3).for_each(|_| extend(&mut line, &[b'x'; LINE]));
        assert_eq!(line.len(), LINE);
    }
}
