//! What keys do.

use super::{Screen, Tab, Ui};

/// A key as it is meant, whatever the terminal sends for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Back,
    Tab,
    BackTab,
    Escape,
    /// Ctrl-C, and signals that end the program.
    Interrupt,
}

/// What a key has the owner of the view do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Draw again, no more.
    Redraw,
    Quit,
    /// Stand still, or go on.
    Freeze,
    /// Start or stop a recording of what is seen.
    Record,
    /// Readings forward or back, in a recording.
    Step(i64),
    /// Tenths of the whole forward or back.
    Jump(i64),
    /// Twice as fast, or half.
    Faster,
    Slower,
    /// To the mark that was just set.
    Baseline,
}

/// Rows that PageUp and PageDown pass over.
const PAGE: usize = 10;

/// Keys and what they do, as the help screen has them.
pub const HELP: &[(&str, &str)] = &[
    ("Up Down j k", "move the cursor"),
    ("PgUp PgDn Home End", "move it further"),
    ("Enter l", "go down: source, cgroup, process, then mapping, file or stack"),
    ("Backspace h Esc", "go back up"),
    ("Tab Shift-Tab 1-4", "another plane"),
    ("s", "order by bytes, by growth, by name"),
    ("/", "show only rows with a text; Enter applies it, Esc clears it"),
    ("m", "set the mark that growth is measured from"),
    ("d", "show growth since the mark first, or levels first"),
    ("Space", "stand still, or go on"),
    ("r", "start or stop a recording of this view"),
    (", .", "one reading back, one forward (in a recording)"),
    ("[ ]", "a tenth back, a tenth forward (in a recording)"),
    ("< >", "play slower, faster (a recording)"),
    ("?", "this help"),
    ("q Ctrl-C", "end"),
    ("", ""),
    ("CHG", "charged to a cgroup: yes, no, some (depends on the allocation)"),
    ("RECL", "reclaimable: yes, no, sync (after writeback), swap (by swapping), part (partly)"),
];

impl Ui {
    /// Takes a key; `screen` is what the user saw when they pressed it.
    pub fn key(&mut self, key: Key, screen: &Screen) -> Action {
        self.status.message = None;
        if key == Key::Interrupt {
            return Action::Quit;
        }
        if self.filtering {
            return self.filter_key(key);
        }
        if self.help {
            self.help = false;
            return Action::Redraw;
        }
        let index = self.index();
        match key {
            Key::Up | Key::Char('k') => self.move_to(screen, index.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.move_to(screen, index + 1),
            Key::PageUp => self.move_to(screen, index.saturating_sub(PAGE)),
            Key::PageDown => self.move_to(screen, index + PAGE),
            Key::Home | Key::Char('g') => self.move_to(screen, 0),
            Key::End | Key::Char('G') => self.move_to(screen, usize::MAX),
            Key::Enter | Key::Char('l') => self.enter(screen),
            Key::Escape if !self.filter.is_empty() => self.filter.clear(),
            Key::Back | Key::Char('h') | Key::Escape => self.leave(),
            Key::Tab => self.turn(1),
            Key::BackTab => self.turn(Tab::ALL.len() - 1),
            Key::Char(digit @ '1'..='4') => {
                let chosen = digit as usize - '1' as usize;
                self.choose(Tab::ALL[chosen]);
            }
            Key::Char('s') => self.order = self.order.next(),
            Key::Char('/') => self.filtering = true,
            Key::Char('d') => self.delta = !self.delta,
            Key::Char('m') => {
                self.next_mark = Some(screen.frame.mark());
                self.status.message = Some("mark set: growth is measured from here".to_owned());
                return Action::Baseline;
            }
            Key::Char('?') => self.help = true,
            Key::Char(' ') => return Action::Freeze,
            Key::Char('r') => return Action::Record,
            Key::Char(',') => return Action::Step(-1),
            Key::Char('.') => return Action::Step(1),
            Key::Char('[') => return Action::Jump(-1),
            Key::Char(']') => return Action::Jump(1),
            Key::Char('<') => return Action::Slower,
            Key::Char('>') => return Action::Faster,
            Key::Char('q') => return Action::Quit,
            Key::Char(_) | Key::Interrupt => {}
        }
        Action::Redraw
    }

    fn filter_key(&mut self, key: Key) -> Action {
        match key {
            Key::Char(c) => self.filter.push(c),
            Key::Back => _ = self.filter.pop(),
            Key::Enter => self.filtering = false,
            Key::Escape => {
                self.filter.clear();
                self.filtering = false;
            }
            _ => {}
        }
        Action::Redraw
    }

    fn turn(&mut self, by: usize) {
        let now = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.choose(Tab::ALL[(now + by) % Tab::ALL.len()]);
    }
}
