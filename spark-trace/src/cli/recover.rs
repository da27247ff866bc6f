use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::Context;

use super::{bounded::bounded_journal, destination::Destination, error::Exit};
use spark_trace_recording::journal;

/// Make a recording from the journal of an interrupted `record`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  spark-trace recover run.json.partial
  spark-trace recover run.json.partial -o recovered.json.zst

A recovered recording ends where the journal was cut and says so. Memory and processor time are
limited. SPARK_TRACE_READ_LIMIT=4G lifts the limits for a journal that you trust.")]
pub struct Args {
    /// The `.partial` file
    file: PathBuf,

    /// File to write, or - for standard output [default: the name without `.partial`]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let path = &args.file;
    let output = match args.output {
        Some(output) => output,
        None if path.extension().is_some_and(|e| e == "partial") => path.with_extension(""),
        None => {
            anyhow::bail!("{}: its name does not end in .partial; name the output with -o", path.display())
        }
    };
    let destination = Destination::new(Some(&output), args.force)?;
    let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let (journal, named) = (file.try_clone().context("cannot read it twice")?, path.display().to_string());
    // Whoever wrote a journal chose what is in it.
    let recording =
        bounded_journal(path, &file, || journal::recover(BufReader::new(journal)).with_context(|| named))?;
    destination.write_recording(&recording)?;
    let readings = recording.samples.system.begin_ns.len();
    destination
        .announce(&format!("recovered {readings} readings in"), "see them with `spark-trace show FILE`");
    Ok(Exit::Fine)
}
