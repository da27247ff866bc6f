//! `top`: the ledger live, or a recording played back, on a terminal.
//!
//! [`Ui`] is what the user has chosen; with a recording and a time it makes a [`Screen`], and [`draw`] puts that on the
//! terminal. None of them knows where the recording comes from: from a trace under way or from a file.

pub mod draw;
pub mod keys;
pub mod player;
pub mod screen;
pub mod terminal;

use std::sync::Arc;

use spark_trace_analysis::drilldown::Holders;
use spark_trace_analysis::live_frame::{Frame, Mark};
use spark_trace_analysis::view::Scope;
use spark_trace_recording::Recording;

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
    /// Its name in the trail, of a cgroup the last part.
    pub fn short(&self) -> &str {
        match self {
            Self::Source(source, _) => source,
            Self::Cgroup(_, path) => path.rsplit('/').next().unwrap_or(path),
            Self::Process(_, name) | Self::Detail(name, _) => name,
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

/// What the status line shows and the recording does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// A trace under way, a recording being played, or one that stands still.
    pub mode: String,
    /// Wall-clock time of what is shown.
    pub clock: String,
    /// What `r` has under way.
    pub recording: Option<String>,
    /// The last message, until the next key.
    pub message: Option<String>,
}

/// What a trace has cost by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracingCost {
    pub elapsed_ns: u64,
    pub agent_ns: u64,
    pub programs_ns: Option<u64>,
}

impl TracingCost {
    const fn by(frame: &Frame) -> Self {
        Self { elapsed_ns: frame.elapsed_ns, agent_ns: frame.agent_cpu_ns, programs_ns: frame.programs_ns }
    }

    /// Since an earlier time; of a finished recording, whose cost is one sum, all of it.
    fn since(self, before: Self) -> Self {
        if self.agent_ns <= before.agent_ns || self.elapsed_ns <= before.elapsed_ns {
            return self;
        }
        let programs = self.programs_ns.zip(before.programs_ns);
        Self {
            elapsed_ns: self.elapsed_ns - before.elapsed_ns,
            agent_ns: self.agent_ns - before.agent_ns,
            programs_ns: programs.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

/// What growth is measured from: the levels, and their holders.
#[derive(Debug, Clone)]
pub struct Baseline {
    pub levels: Mark,
    pub holders: Holders,
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
    pub mark: Option<Arc<Baseline>>,
    /// What becomes the mark with the next screen.
    next_mark: Option<Mark>,
    pub status: Status,
    /// What the trace had cost when the view began: loading it is not what looking costs.
    before: Option<TracingCost>,
}

impl Ui {
    /// What is to be seen of `recording` at `at_ns`.
    pub fn screen(&mut self, recording: &Recording, at_ns: u64, history: usize) -> Screen {
        if let Some(levels) = self.next_mark.take() {
            self.set_mark(levels, recording);
        }
        let frame = Frame::new(recording, at_ns, self.mark.as_ref().map(|marked| &marked.levels), history);
        // Growth is since the view began until the user says otherwise.
        if self.mark.is_none() {
            self.set_mark(frame.mark(), recording);
        }
        let spent = TracingCost::by(&frame);
        let spent = spent.since(*self.before.get_or_insert(spent));
        let screen = Screen::new(self, recording, frame, spent);
        self.follow(&screen);
        screen
    }

    /// Measures growth from these levels of the recording on. It may have gone on since: they have their time.
    fn set_mark(&mut self, levels: Mark, recording: &Recording) {
        let holders = Holders::at(recording, levels.at_ns);
        self.mark = Some(Arc::new(Baseline { levels, holders }));
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
