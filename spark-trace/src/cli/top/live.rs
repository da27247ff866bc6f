//! `top` on what runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc,
};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use spark_trace_common::{capacities, hook::Profile};

use super::headings;
use super::watcher::{Command, Pace, Watcher};
use super::{Args, Format, json_line, needs_terminal, one};
use crate::cli::error::Exit;
use crate::cli::log::LogArgs;
use crate::cli::output;
use crate::top::player::{Feed, LOOK};
use crate::top::{Action, Screen, Tab, Ui, draw, terminal};
use spark_trace_agent::monitor::{Monitor, Update};
use spark_trace_agent::now_ns;
use spark_trace_agent::output::{self as output_options, StandardOutput};
use spark_trace_agent::session::{self, Keep, Wishes};
use spark_trace_agent::subject::{Placement, Spec, command::Invoker};
use spark_trace_analysis::live_frame::Frame;
use spark_trace_recording as recording;
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
    /// Write what COMMAND writes to FILE, too: it is not shown, as the view has the terminal
    #[arg(help_heading = headings::COMMAND, long, value_name = "FILE", requires = "command")]
    log_file: Option<PathBuf>,
    #[command(flatten)]
    logging: LogArgs,
    /// Start this command and watch it alone; it ends with the view, and the view with it
    #[arg(
        trailing_var_arg = true,
        value_hint = clap::ValueHint::CommandWithArguments,
        value_name = "COMMAND",
        group = "target",
        conflicts_with_all = ["replay", "once", "duration"]
    )]
    command: Vec<OsString>,
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
    /// `shown` is where what a command writes is to be seen.
    fn session(&self, shown: StandardOutput) -> session::Options {
        let profile = if self.light { Profile::Light } else { Profile::Default };
        let interval = self.interval;
        session::Options {
            spec: self.spec(),
            // Somebody looks for what takes memory now: what hooks at every system call show is worth their cost.
            hooks: profile.into(),
            interval,
            min_region: 1 << 20,
            keep_fine: None,
            python_min: Some(1 << 20),
            unwind_min: None,
            ring_bytes: capacities::RING_BYTES,
            libraries: Vec::new(),
            // Of what runs already nothing is paused.
            pause: !self.command.is_empty(),
            duration: self.duration,
            nvml: self.nvml.clone(),
            gpu_interval: interval,
            output: self.output(),
            command_output: shown,
            keep: Keep::Latest(self.window),
            arguments: Arguments::Hidden,
        }
    }

    /// What is written is read of a container, or of a command.
    fn output(&self) -> Option<output_options::Options> {
        let reads = self.container.is_some() || !self.command.is_empty();
        let write = WriteOptions { force: false, owner: owner() };
        let file = self.log_file.clone();
        reads.then(|| output_options::Options { file, write, ..Default::default() })
    }

    fn spec(&self) -> Spec {
        if !self.command.is_empty() {
            let argv = self.command.clone();
            return Spec::Command { argv, placement: Placement::Leaf, as_root: false };
        }
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
    let draws = !args.once && args.format == Format::Table;
    anyhow::ensure!(
        !(draws && args.live.logging.is_on_terminal()),
        anyhow::anyhow!("the log would be written over the view: send it to a file, as in `2> top.log`")
            .context(Exit::Usage)
    );
    let _log = args.live.logging.start().context(Exit::TraceFailed)?;
    if args.once {
        return once(args);
    }
    if args.format == Format::Json {
        return stream(args);
    }
    needs_terminal()?;
    show(args)
}

/// Of the first reading alone there is no rate, and details that it wants are in a later one.
const READINGS_OF_ONE: u32 = 3;

/// Prints one frame.
fn once(args: &Args) -> anyhow::Result<Exit> {
    let (format, style) = (args.format, output::style(args.width));
    let (made, frames) = mpsc::sync_channel(1);
    let mut details = Pace::default();
    let mut readings = 0;
    let observe = move |seen: Update<'_>| {
        let Update::Reading { recording, .. } = seen else { return Wishes::default() };
        readings += 1;
        // The processes are listed, too.
        let wishes = Wishes { details: details.is_due(), ..Wishes::default() };
        if readings < READINGS_OF_ONE {
            return wishes;
        }
        // The first one is printed.
        let _ = made.try_send(one(format, style, recording, last(recording)));
        Wishes { end: true, ..Wishes::default() }
    };
    print_all(Monitor::watch(args.live.session(StandardOutput::Own), observe), frames)
}

/// Prints frames as they come.
fn stream(args: &Args) -> anyhow::Result<Exit> {
    let (made, frames) = mpsc::sync_channel(1);
    let mut mark = None;
    let observe = move |seen: Update<'_>| {
        if let Update::Reading { recording, .. } = seen {
            let frame = Frame::new(recording, last(recording), mark.as_ref(), 0);
            mark.get_or_insert_with(|| frame.mark());
            // The trace does not wait for a reader that is slower: it misses frames.
            let _ = made.try_send(json_line(&frame));
        }
        Wishes::default()
    };
    print_all(Monitor::watch(args.live.session(StandardOutput::Error), observe), frames)
}

/// Prints what is made in the trace's thread, until the trace has ended.
fn print_all(mut look: Monitor, frames: mpsc::Receiver<anyhow::Result<Vec<u8>>>) -> anyhow::Result<Exit> {
    for frame in frames {
        output::print(&frame?)?;
    }
    look.end().context(Exit::TraceFailed)?;
    Ok(Exit::Fine)
}

fn show(args: &Args) -> anyhow::Result<Exit> {
    let target = args.live.spec();
    let mut ui = Ui::default();
    if !matches!(target, Spec::System { .. }) {
        ui.tab = Tab::Cgroup;
    }
    let (commands, taken) = mpsc::channel();
    let readings = Arc::<AtomicU64>::default();
    let mut watcher = Watcher::new(taken, Arc::clone(&readings));
    let look = Monitor::watch(args.live.session(StandardOutput::Nowhere), move |seen| watcher.see(seen));
    let mut feed = Watched {
        look,
        commands,
        readings,
        kind: target.kind().as_str(),
        frozen: None,
        seen: 0,
        recording: None,
        writing: Vec::new(),
    };
    // Loading and attaching takes a moment; an error of it is printed on a terminal that is left alone.
    while feed.readings() == 0 && !feed.look.has_ended() {
        std::thread::sleep(LOOK);
    }
    let shown = match feed.look.has_ended() {
        true => Ok(()),
        false => terminal::run(&mut feed, &mut ui, output::style(args.width)),
    };
    if feed.recording.is_some() {
        feed.act(Action::Record, &mut ui);
    }
    ui.status.message = feed.written(|_| true).or(ui.status.message);
    if !args.live.command.is_empty() && !feed.look.has_ended() {
        eprintln!("spark-trace: ending the command");
    }
    feed.look.end().context(Exit::TraceFailed)?;
    shown.context("cannot use the terminal")?;
    if let Some(message) = &ui.status.message {
        eprintln!("spark-trace: {}", spark_trace_render::escape::line(message));
    }
    Ok(Exit::Fine)
}

/// Whom files belong to that are written.
fn owner() -> Option<(u32, u32)> {
    Invoker::from_environment().map(|invoker| (invoker.uid, invoker.gid))
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
    look: Monitor,
    commands: mpsc::Sender<Command>,
    readings: Arc<AtomicU64>,
    kind: &'static str,
    /// What is shown while time stands still.
    frozen: Option<Recording>,
    seen: u64,
    /// Everything is kept, for this file.
    recording: Option<(PathBuf, mpsc::Receiver<Box<Recording>>)>,
    /// Recordings that are being written; each says what became of it.
    writing: Vec<JoinHandle<String>>,
}

impl Feed for Watched {
    fn screen(&mut self, ui: &mut Ui) -> Option<Screen> {
        self.seen = self.readings();
        if let Some(recording) = &self.frozen {
            return Some(ui.screen(recording, last(recording), draw::HISTORY));
        }
        let mut chosen = ui.clone();
        let (chosen, screen) = self.look.view(move |recording| {
            let screen = chosen.screen(recording, last(recording), draw::HISTORY);
            (chosen, screen)
        })?;
        *ui = chosen;
        Some(screen)
    }

    fn has_changed(&mut self) -> bool {
        self.frozen.is_none() && self.readings() != self.seen
    }

    fn act(&mut self, action: Action, ui: &mut Ui) {
        match action {
            Action::Freeze => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => self.look.view(Recording::clone),
                };
            }
            Action::Record => ui.status.message = Some(self.toggle_recording()),
            Action::Step(_) | Action::Jump(_) | Action::Faster | Action::Slower => {
                ui.status.message = Some("this key works only with --replay FILE".to_owned());
            }
            Action::Redraw | Action::Quit | Action::Baseline => {}
        }
    }

    fn look_at(&mut self, ui: &Ui) {
        let (_, _, pid) = ui.focus();
        let wanted = !ui.path.is_empty() || ui.tab == Tab::Process;
        self.want(Command::Details { wanted, pid });
    }

    fn status(&mut self, ui: &mut Ui) {
        let state = if self.frozen.is_some() { "FROZEN" } else { "live" };
        ui.status.mode = format!("{state} {}", self.kind);
        // Of 20260102T030405Z the time of day.
        let now = parse::utc_now();
        let of_day: Vec<&str> =
            [9..11, 11..13, 13..15].into_iter().filter_map(|part| now.get(part)).collect();
        ui.status.clock = format!("{} UTC", of_day.join(":"));
        if let Some(message) = self.written(JoinHandle::is_finished) {
            ui.status.message = Some(message);
        }
        ui.status.recording = self.recording.as_ref().map(|(file, _)| file.display().to_string());
    }

    fn has_ended(&self) -> bool {
        self.look.has_ended()
    }
}

impl Watched {
    fn readings(&self) -> u64 {
        self.readings.load(Ordering::Acquire)
    }

    fn want(&self, command: Command) {
        // A trace that has ended takes no more: that is seen at once.
        let _ = self.commands.send(command);
    }

    fn toggle_recording(&mut self) -> String {
        let Some((file, handed)) = self.recording.take() else {
            let file = PathBuf::from(format!("spark-trace-top-{}.json", parse::utc_now()));
            let status = format!("recording to {}; r again writes it", file.display());
            let (to, handed) = mpsc::sync_channel(1);
            self.want(Command::Keep { since_ns: now_ns(), to });
            self.recording = Some((file, handed));
            return status;
        };
        let owner = owner();
        let status = format!("writing {}", file.display());
        self.want(Command::HandOver);
        // Naming and writing take as long as they take, so a thread waits for it.
        self.writing.push(std::thread::spawn(move || {
            let Ok(kept) = handed.recv() else { return "not written: the trace has failed".to_owned() };
            match recording::write(&kept, &file, WriteOptions { force: false, owner }) {
                Ok(()) => format!("wrote {}", file.display()),
                Err(error) => format!("not written: {error}"),
            }
        }));
        status
    }

    /// What became of the last of these recordings, once they are written.
    fn written(&mut self, which: impl Fn(&JoinHandle<String>) -> bool) -> Option<String> {
        let written = self.writing.extract_if(.., |thread| which(thread)).map(|thread| {
            // A panic is a defect: passed on, not hidden.
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        written.last()
    }
}
