//! `top`: the ledger live, or a recording played back, on a terminal.
//!
//! [`Ui`] is what the user has chosen; with a recording and a time it makes a [`Screen`], and [`draw`] puts that on the
//! terminal. None of them knows where the recording comes from: from a trace under way or from a file.

pub mod draw;
pub mod keys;
pub mod player;
pub mod screen;
pub mod terminal;

use crate::analysis::frame::{Frame, Mark};
use crate::analysis::view::Scope;
use crate::recording::Recording;

pub use keys::{Action, Key};
pub use screen::{Row, Screen};

/// Planes as tabs; processes overlap with all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tab {
    #[default]
    System,
    Cgroup,
    Process,
    Device,
}

impl Tab {
    pub const ALL: [Self; 4] = [Self::System, Self::Cgroup, Self::Process, Self::Device];

    pub const fn title(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Cgroup => "Cgroup",
            Self::Process => "Process",
            Self::Device => "Device",
        }
    }

    /// The plane whose sources it lists.
    pub const fn scope(self) -> Option<Scope> {
        match self {
            Self::System => Some(Scope::System),
            Self::Cgroup => Some(Scope::Cgroup),
            Self::Device => Some(Scope::Device),
            Self::Process => None,
        }
    }
}

/// A step down: what was chosen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Of the tab's plane, on this GPU where it is a device's.
    Source(&'static str, Option<u32>),
    Cgroup(u64, String),
    Process(u32, String),
    /// What it is, and the frames of its stack.
    Detail(String, Vec<String>),
}

impl Step {
    /// Its name in the path.
    pub fn name(&self) -> &str {
        match self {
            Self::Source(source, _) => source,
            Self::Cgroup(_, name) | Self::Process(_, name) | Self::Detail(name, _) => name,
        }
    }

    /// The same thing at another time.
    fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cgroup(a, _), Self::Cgroup(b, _)) => a == b,
            (Self::Process(a, _), Self::Process(b, _)) => a == b,
            (a, b) => a == b,
        }
    }
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The largest first.
    #[default]
    Bytes,
    /// What has grown most since the mark first.
    Growth,
    /// The taxonomy's order; of others by name.
    Name,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Bytes => Self::Growth,
            Self::Growth => Self::Name,
            Self::Name => Self::Bytes,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Growth => "growth",
            Self::Name => "name",
        }
    }
}

/// What the status line tells that the recording does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// A trace under way, a recording being played, or one that stands still.
    pub mode: String,
    /// Wall-clock time of what is shown.
    pub clock: String,
    /// What `r` has under way.
    pub recording: Option<String>,
    /// The last thing worth telling, until the next key.
    pub message: Option<String>,
}

/// What the user has chosen.
#[derive(Debug, Clone, Default)]
pub struct Ui {
    pub tab: Tab,
    pub path: Vec<Step>,
    /// The row the cursor is on, kept by what it stands for: rows change places.
    selected: Option<Step>,
    index: usize,
    pub order: Order,
    pub filter: String,
    /// Keys go to the filter.
    pub filtering: bool,
    pub help: bool,
    /// Show growth since the mark instead of levels.
    pub delta: bool,
    /// Absent until there was a first frame.
    pub mark: Option<Mark>,
    pub status: Status,
}

impl Ui {
    /// What is to be seen of `recording` at `at_ns`.
    pub fn screen(&mut self, recording: &Recording, at_ns: u64, history: usize) -> Screen {
        let frame = Frame::new(recording, at_ns, self.mark.as_ref(), history);
        // Growth is since the view began until the user says otherwise.
        if self.mark.is_none() {
            self.mark = Some(frame.mark());
        }
        let screen = Screen::new(self, recording, frame);
        self.follow(&screen);
        screen
    }

    /// Keeps the cursor on what it was on.
    fn follow(&mut self, screen: &Screen) {
        let found = self.selected.as_ref().and_then(|selected| {
            screen.rows.iter().position(|row| row.step.as_ref().is_some_and(|step| step.is_same_as(selected)))
        });
        self.index = found.unwrap_or(self.index).min(screen.rows.len().saturating_sub(1));
    }

    pub const fn index(&self) -> usize {
        self.index
    }

    /// The source, cgroup and process that the path goes through.
    pub fn focus(&self) -> (Option<&'static str>, Option<u64>, Option<u32>) {
        let source = self
            .path
            .iter()
            .find_map(|step| if let Step::Source(source, _) = step { Some(*source) } else { None });
        let cgroup =
            self.path.iter().find_map(|step| if let Step::Cgroup(id, _) = step { Some(*id) } else { None });
        let pid = self
            .path
            .iter()
            .find_map(|step| if let Step::Process(pid, _) = step { Some(*pid) } else { None });
        (source, cgroup, pid)
    }

    fn move_to(&mut self, screen: &Screen, index: usize) {
        self.index = index.min(screen.rows.len().saturating_sub(1));
        self.selected = screen.rows.get(self.index).and_then(|row| row.step.clone());
    }

    /// Goes down to what the cursor is on.
    fn enter(&mut self, screen: &Screen) {
        if let Some(step) = screen.rows.get(self.index).and_then(|row| row.step.clone()) {
            self.path.push(step);
            self.restart();
        }
    }

    fn leave(&mut self) {
        if let Some(left) = self.path.pop() {
            self.restart();
            self.selected = Some(left);
        }
    }

    fn choose(&mut self, tab: Tab) {
        self.tab = tab;
        self.path.clear();
        self.restart();
    }

    /// Another list: what was meant for the last one is not meant for it.
    fn restart(&mut self) {
        self.selected = None;
        self.index = 0;
        self.filter.clear();
        self.filtering = false;
    }
}

#[cfg(test)]
mod tests;
