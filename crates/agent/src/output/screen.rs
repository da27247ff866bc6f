//! The terminal that the command's output and the progress line share.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Carriage return, and "erase to the end of the line" (ECMA-48, EL).
const ERASE: &[u8] = b"\r\x1b[K";

/// What stands in the line where the cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Cursor {
    #[default]
    LineStart,
    /// Behind the progress line.
    Progress,
    /// Behind output that has not ended its line.
    Output,
}

/// One writer at a time: the command's output erases the progress line first, and the progress line is drawn only where
/// the output has ended its own.
#[derive(Debug, Default)]
pub struct Screen(Mutex<Cursor>);

impl Screen {
    /// Passes on output of the command.
    pub fn write(&self, to: &mut File, piece: &[u8]) -> io::Result<()> {
        if !to.is_terminal() {
            return to.write_all(piece);
        }
        let mut cursor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *cursor == Cursor::Progress {
            to.write_all(ERASE)?;
            *cursor = Cursor::LineStart;
        }
        if let Some(last) = piece.last() {
            *cursor = if *last == b'\n' { Cursor::LineStart } else { Cursor::Output };
        }
        to.write_all(piece)
    }

    /// Draws `text` over the progress line that is there. Never waits: where the terminal is slow it is left out.
    pub fn draw(&self, to: &mut dyn Write, text: &str) {
        self.replace(to, text.as_bytes());
    }

    pub fn erase(&self, to: &mut dyn Write) {
        self.replace(to, b"");
    }

    fn replace(&self, to: &mut dyn Write, text: &[u8]) {
        let mut cursor = match self.0.try_lock() {
            Ok(cursor) => cursor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Output is being written, which has erased the line.
            Err(TryLockError::WouldBlock) => return,
        };
        if *cursor == Cursor::Output || (text.is_empty() && *cursor == Cursor::LineStart) {
            return;
        }
        // One write: others may use the terminal, too. A failure to draw is no reason to stop a trace.
        let _ = to.write_all(&[ERASE, text].concat());
        *cursor = if text.is_empty() { Cursor::LineStart } else { Cursor::Progress };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_waits_for_the_end_of_a_line_and_goes_before_output() {
        let screen = Screen::default();
        let mut drawn = Vec::new();
        screen.erase(&mut drawn);
        assert!(drawn.is_empty(), "there is nothing to erase");
        screen.draw(&mut drawn, "1.0s");
        screen.draw(&mut drawn, "2.0s");
        screen.erase(&mut drawn);
        assert_eq!(drawn, b"\r\x1b[K1.0s\r\x1b[K2.0s\r\x1b[K");

        *screen.0.lock().unwrap() = Cursor::Output;
        drawn.clear();
        screen.draw(&mut drawn, "3.0s");
        screen.erase(&mut drawn);
        assert!(drawn.is_empty(), "the line is the command's");
    }

    #[test]
    fn a_writer_that_is_stuck_holds_up_nobody() {
        let screen = Screen::default();
        let _writing = screen.0.lock().unwrap();
        let mut drawn = Vec::new();
        screen.draw(&mut drawn, "1.0s");
        assert!(drawn.is_empty());
    }

    #[test]
    fn what_is_no_terminal_gets_the_output_alone() {
        let screen = Screen::default();
        screen.draw(&mut Vec::new(), "1.0s");
        let mut file = tempfile::tempfile().unwrap();
        screen.write(&mut file, b"output").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6);
        assert_eq!(*screen.0.lock().unwrap(), Cursor::Progress);
    }
}
