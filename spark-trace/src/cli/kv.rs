use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::bounded::bounded;
use crate::cli::engine::engines;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use crate::cli::view;
use spark_trace_analysis::belongs;
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::kv::{self, Options};
use spark_trace_engines::Engine;
use spark_trace_recording as recording;
use spark_trace_render::Format;

/// Explain the size of the KV cache of an inference engine
///
/// An inference engine sizes its KV cache by one reading of free memory, or by two. Prints them, who had the memory at
/// each, the engine's arithmetic beside its log and the traced bytes, what would have given more, and advice for this
/// engine. With two recordings, explains the second against the first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to explain, or the baseline if there are two
    a: PathBuf,
    /// Recording to explain
    b: Option<PathBuf>,
    /// The framework's log of the same run; use it twice for A and B, in this order [default: lines in the recordings]
    #[arg(help_heading = headings::CONTENT, long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Which engine it is, if neither its log nor its processes say it
    #[arg(help_heading = headings::CONTENT, long, value_name = "NAME", value_parser = engines())]
    engine: Option<Engine>,
    /// The engine's fraction (of the total, of the free memory, as it has it), if no log line has it [default: from the
    /// command line, from what was allocated, or the engine's own]
    #[arg(help_heading = headings::CONTENT, long, value_name = "0..1", value_parser = fraction)]
    fraction: Option<f64>,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_parser = view::formats(), default_value = "table")]
    format: &'static Format,
    #[command(flatten)]
    width: output::WidthArg,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace kv container.json
  spark-trace kv native.json container.json
  spark-trace kv native.json container.json --log native.log --log container.log
  spark-trace kv run.json --engine vllm
  spark-trace kv run.json --fraction 0.8 --format json | jq .b.figures";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let files: Vec<_> = [Some(&args.a), args.b.as_ref()].into_iter().flatten().cloned().collect();
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    output::print(&bounded(&files, || text(args))?)
}

fn text(args: Args) -> anyhow::Result<Vec<u8>> {
    let recordings = 1 + usize::from(args.b.is_some());
    let logs = args.log.len();
    if logs != 0 && logs != recordings {
        return Err(anyhow::anyhow!("{logs} --log for {recordings} recordings: use one for each, A first")
            .context(Exit::Usage));
    }
    let logs = args.log.iter().map(|path| log(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let (a, b) = match &args.b {
        Some(b) => recording::read_both(&args.a, b).map(|(a, b)| (Some(a), b))?,
        None => (None, recording::read(&args.a)?),
    };
    for (recording, (path, log)) in a.iter().chain([&b]).zip(args.log.iter().zip(&logs)) {
        // Figures of one run in another's arithmetic would be wrong without a trace of it.
        if let Some(mismatch) = belongs::mismatch(recording, &path.display().to_string(), log) {
            return Err(anyhow::anyhow!("{mismatch}. Use the log of the same run, or no --log"));
        }
    }
    let options = Options {
        fraction: args.fraction,
        engine: args.engine,
        a_log: logs.first().map(String::as_str).filter(|_| a.is_some()),
        b_log: logs.last().map(String::as_str),
    };
    let files = || {
        if args.b.is_none() {
            return args.a.display().to_string();
        }
        let names = [Some(&args.a), args.b.as_ref()].into_iter().flatten().zip(["A", "B"]);
        let names: Vec<_> = names.map(|(path, name)| format!("{name} = {}", path.display())).collect();
        names.join(", ")
    };
    let (a, b) = (a.as_ref().map(Derived::from), Derived::from(&b));
    let report = kv::report(a.as_ref().map(Derived::for_kv), b.for_kv(), options).with_context(files)?;
    Ok((args.format.kv)(&report, output::style(args.width))?)
}

fn log(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    recording::read::open(path)?
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn fraction(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (value > 0.0 && value <= 1.0).then_some(value).ok_or_else(|| "not above 0 and up to 1".to_owned())
}
