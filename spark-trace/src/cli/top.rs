use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;

use super::bounded::bounded;
use super::error::Exit;
use super::headings;
use super::{output, view};
use crate::top::player::Player;
use crate::top::{Ui, terminal};
use spark_trace_analysis::live_frame::Frame;
use spark_trace_recording as recording;
use spark_trace_recording::Recording;
use spark_trace_render::{Style, escape};

mod live;
mod once;
mod watcher;

/// Watch the memory of the machine live
///
/// Lists sources with their levels, their growth since a mark, and their holders: from a source down to cgroup, process,
/// and mapping, file or stack. Watches all processes, or one target. Levels include older memory; callers are known for
/// memory that is allocated from now on. Of a container and of a command the log is read, which names the engine's stage.
/// `--replay` plays a recording in the same view.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Play a recording instead
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Print one frame and exit
    #[arg(help_heading = headings::OUTPUT, long)]
    once: bool,
    /// `table` for a terminal, `json` for one line per frame
    #[arg(help_heading = headings::OUTPUT, long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    width: output::WidthArg,
    /// With --replay: begin at this time after the start, such as 465ms or 12.5s, or at @NS, nanoseconds of its clock
    #[arg(long, value_name = "INSTANT", requires = "replay")]
    at: Option<spark_trace_analysis::instant_spec::Choice>,
    #[command(flatten)]
    live: live::Options,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace top
  sudo spark-trace top --container web
  sudo spark-trace top vllm serve MODEL
  sudo spark-trace top --once
  sudo spark-trace top --format json | jq -c '.planes[0].residual'
  spark-trace top --replay run.json

Press ? for the keys. NO_COLOR=1 turns colours off.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match &args.replay {
        Some(file) => {
            let path = file.clone();
            let recording = bounded(&[file], move || Ok(recording::read(&path)?))?;
            let at = view::instant(args.at, file, &recording)?;
            let at_ns = at.time(recording.target.started_ns);
            let mut player = Player::new(recording)
                .with_context(|| format!("{}: has no reading to show", file.display()))?;
            if let Some(at_ns) = at_ns {
                player.seek(at_ns);
            }
            replay(&args, player, at_ns)
        }
        None => live::run(&args),
    }
}

fn replay(args: &Args, mut player: Player, at_ns: Option<u64>) -> anyhow::Result<Exit> {
    if args.once {
        // Without a time the last frame: it has the whole run behind it.
        let at_ns = at_ns.or(player.times().last().copied()).unwrap_or(0);
        return output::print(&one(args.format, output::style(args.width), player.recording(), at_ns)?);
    }
    if args.format == Format::Json {
        for &at_ns in player.times().iter().filter(|&&time| at_ns.is_none_or(|from| time >= from)) {
            output::print(&json_line(&Frame::new(player.recording(), at_ns, None, 0))?)?;
        }
        return Ok(Exit::Fine);
    }
    needs_terminal()?;
    terminal::run(&mut player, &mut Ui::default(), output::style(args.width))
        .context("cannot use the terminal")?;
    Ok(Exit::Fine)
}

fn needs_terminal() -> anyhow::Result<()> {
    // What clears the screen and moves the cursor would be printed by one that cannot do it.
    let term = std::env::var_os("TERM").unwrap_or_default();
    anyhow::ensure!(
        !(terminal::is_there() && (term.is_empty() || term == "dumb")),
        anyhow::anyhow!(
            "`top` draws on the whole screen, and TERM={} cannot; --once prints one frame and --format json one line a frame",
            escape::line(&term.to_string_lossy())
        )
        .context(Exit::Usage)
    );
    anyhow::ensure!(
        terminal::is_there(),
        anyhow::anyhow!("`top` needs a terminal; --once prints one frame and --format json one line a frame")
            .context(Exit::Usage)
    );
    Ok(())
}

/// One frame in full.
fn one(format: Format, style: Style, recording: &Recording, at_ns: u64) -> anyhow::Result<Vec<u8>> {
    match format {
        Format::Json => json_line(&Frame::new(recording, at_ns, None, 0)),
        Format::Table => Ok(once::text(recording, at_ns, style)?.into_bytes()),
    }
}

fn json_line(frame: &Frame) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(frame).context("the frame has no JSON form")?;
    line.push(b'\n');
    Ok(line)
}
