//! `top` on what runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use spark_trace_common::{hook::Profile, map};

use super::headings;
use super::{Args, Format, json_line, needs_terminal, once};
use crate::cli::error::Exit;
use crate::cli::output;
use crate::tui::player::{Feed, LOOK};
use crate::tui::{Action, Tab, Ui, terminal};
use spark_trace_agent::look::Look;
use spark_trace_agent::output::StandardOutput;
use spark_trace_agent::plan::Choice;
use spark_trace_agent::session::{self, Keep};
use spark_trace_agent::target::{Spec, command::Invoker};
use spark_trace_analysis::frame::Frame;
use spark_trace_recording::parse;
use spark_trace_recording::{Recording, WriteOptions, journal::Arguments};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only a running container, by id or name
    #[arg(help_heading = headings::CONTENT, long, value_name = "ID|NAME", group = "target", conflicts_with = "replay")]
    container: Option<String>,
    /// Only a cgroup, by its directory or its path below the memory hierarchy
    #[arg(help_heading = headings::CONTENT, long, value_name = "PATH", group = "target", conflicts_with = "replay")]
    cgroup: Option<PathBuf>,
    /// Only a running process with all its descendants
    #[arg(help_heading = headings::CONTENT, long, value_name = "PID", group = "target", conflicts_with = "replay")]
    pid: Option<u32>,
    /// Time between two readings, at least 50ms
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "500ms", value_parser = interval)]
    interval: Duration,
    /// Readings and events older than this are forgotten
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "2m", value_parser = parse::duration)]
    window: Duration,
    /// Stop after this time
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", value_parser = parse::duration)]
    duration: Option<Duration>,
    /// Record only levels and requests to the NVIDIA driver, no stacks or files: lowest overhead
    #[arg(help_heading = headings::DETAIL, long)]
    light: bool,
    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,
}

/// Readings faster than this are `record`'s business.
const FASTEST: Duration = Duration::from_millis(50);

fn interval(text: &str) -> Result<Duration, String> {
    let time = parse::interval(text)?;
    (time >= FASTEST)
        .then_some(time)
        .ok_or_else(|| "shorter than 50ms: `record` reads faster than that".to_owned())
}

impl Options {
    fn session(&self) -> session::Options {
        let profile = if self.light { Profile::Light } else { Profile::Default };
        let interval = self.interval;
        session::Options {
            spec: self.spec(),
            hooks: Choice { profile, without: Vec::new(), without_mechanisms: Vec::new() },
            interval,
            min_region: 1 << 20,
            ring_bytes: map::RING_BYTES,
            libraries: Vec::new(),
            pause: false,
            duration: self.duration,
            nvml: self.nvml.clone(),
            gpu_interval: interval,
            output: None,
            command_output: StandardOutput::Own,
            keep: Keep::Latest(self.window),
            arguments: Arguments::Hidden,
        }
    }

    fn spec(&self) -> Spec {
        if let Some(name) = &self.container {
            return Spec::Container { engine: None, name: name.clone() };
        }
        if let Some(path) = &self.cgroup {
            return Spec::Cgroup(path.clone());
        }
        self.pid.map_or(Spec::System { argv: Vec::new() }, Spec::Pid)
    }
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let streams = args.once || args.format == Format::Json;
    if !streams {
        needs_terminal()?;
    }
    let look = Look::start(args.live.session());
    // One frame lists processes, too.
    look.want_details(args.once, None);
    if streams { stream(args, look) } else { show(args, look) }
}

/// Prints frames as they come.
fn stream(args: &Args, mut look: Look) -> anyhow::Result<Exit> {
    let mut printed = 0;
    let mut mark = None;
    while !look.has_ended() {
        let version = look.version();
        // Of the first reading alone there is no rate.
        let first = if args.once { 2 } else { 0 };
        if version == printed || version <= first {
            std::thread::sleep(LOOK);
            continue;
        }
        printed = version;
        let Some(recording) = look.latest() else { continue };
        let at_ns = last(&recording);
        if args.once {
            once(args, &recording, at_ns)?;
            break;
        }
        let frame = Frame::new(&recording, at_ns, mark.as_ref(), 0);
        if mark.is_none() {
            mark = Some(frame.mark());
        }
        output::print(&json_line(&frame)?)?;
    }
    look.end().context(Exit::TraceFailed)?;
    Ok(Exit::Fine)
}

fn show(args: &Args, look: Look) -> anyhow::Result<Exit> {
    let target = args.live.spec();
    let mut ui = Ui::default();
    if !matches!(target, Spec::System { .. }) {
        ui.tab = Tab::Cgroup;
    }
    let mut feed =
        Watched { look, kind: target.kind().as_str(), frozen: None, seen: 0, recording: None, writing: None };
    // Loading and attaching takes a moment; an error of it is better told on a terminal that is left alone.
    while feed.look.version() == 0 && !feed.look.has_ended() {
        std::thread::sleep(LOOK);
    }
    let shown = match feed.look.has_ended() {
        true => Ok(()),
        false => terminal::run(&mut feed, &mut ui, output::style(args.width)),
    };
    if feed.recording.is_some() {
        feed.act(Action::Record, &mut ui);
    }
    if let Some(Err(panic)) = feed.writing.take().map(JoinHandle::join) {
        std::panic::resume_unwind(panic);
    }
    ui.status.message = feed.look.told().or(ui.status.message);
    feed.look.end().context(Exit::TraceFailed)?;
    shown.context("cannot use the terminal")?;
    if let Some(message) = &ui.status.message {
        eprintln!("spark-trace: {}", spark_trace_render::escape::line(message));
    }
    Ok(Exit::Fine)
}

/// The latest reading there is.
fn last(recording: &Recording) -> u64 {
    let series = &recording.samples.system;
    let end = series
        .begin_ns
        .len()
        .checked_sub(1)
        .and_then(|index| spark_trace_recording::ledger::time_of(series, index));
    end.unwrap_or(0)
}

/// A trace under way as something to look at.
struct Watched {
    look: Look,
    kind: &'static str,
    /// What is shown while time stands still.
    frozen: Option<Arc<Recording>>,
    seen: u64,
    /// Since when everything is kept, and where it is to be written.
    recording: Option<(u64, PathBuf)>,
    writing: Option<JoinHandle<()>>,
}

impl Feed for Watched {
    fn now(&mut self) -> Option<(Arc<Recording>, u64)> {
        self.seen = self.look.version();
        let recording = self.frozen.clone().or_else(|| self.look.latest())?;
        let at_ns = last(&recording);
        Some((recording, at_ns))
    }

    fn has_changed(&mut self) -> bool {
        self.frozen.is_none() && self.look.version() != self.seen
    }

    fn act(&mut self, action: Action, ui: &mut Ui) {
        match action {
            Action::Freeze => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => self.look.latest(),
                };
            }
            Action::Record => ui.status.message = Some(self.toggle_recording()),
            Action::Step(_) | Action::Jump(_) | Action::Faster | Action::Slower => {
                ui.status.message = Some("this key works only with --replay FILE".to_owned());
            }
            Action::Redraw | Action::Quit | Action::Marked => {}
        }
    }

    fn look_at(&mut self, ui: &Ui) {
        let (_, _, pid) = ui.focus();
        let below = !ui.path.is_empty() || ui.tab == Tab::Process;
        self.look.want_details(below, pid);
    }

    fn status(&mut self, ui: &mut Ui) {
        let state = if self.frozen.is_some() { "FROZEN" } else { "live" };
        ui.status.mode = format!("{state} {}", self.kind);
        // Of 20260102T030405Z the time of day.
        let now = parse::utc_now();
        let of_day: Vec<&str> =
            [9..11, 11..13, 13..15].into_iter().filter_map(|part| now.get(part)).collect();
        ui.status.clock = format!("{} UTC", of_day.join(":"));
        if let Some(told) = self.look.told() {
            ui.status.message = Some(told);
        }
        ui.status.recording = self.recording.as_ref().map(|(_, file)| file.display().to_string());
    }

    fn has_ended(&self) -> bool {
        self.look.has_ended()
    }
}

impl Watched {
    fn toggle_recording(&mut self) -> String {
        let Some((since_ns, file)) = self.recording.take() else {
            let file = PathBuf::from(format!("spark-trace-top-{}.json", parse::utc_now()));
            let told = format!("recording to {}; r again writes it", file.display());
            self.recording = Some((self.look.begin_recording(), file));
            return told;
        };
        let owner = Invoker::from_environment().map(|invoker| (invoker.uid, invoker.gid));
        let told = format!("writing {}", file.display());
        self.writing = Some(self.look.end_recording(since_ns, file, WriteOptions { force: false, owner }));
        told
    }
}
