use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use spark_trace_host::output_file::make_directories;
use spark_trace_recording as recording;
use spark_trace_recording::WriteOptions;
use spark_trace_render::{escape, json};
use spark_trace_study::import::{FORMATS, Format, Imported, read};
use spark_trace_study::{RESULTS, StudyError};

/// Import the results of a study of another tool
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  spark-trace study import --format benchmark-spark all_benchmark_results.json --dir phase1\n  spark-trace study report phase1 -o phase1-site"
)]
pub struct Args {
    /// The results
    file: PathBuf,
    /// Format of the results
    #[arg(long, value_parser = formats())]
    format: &'static Format,
    /// Folder of the study, to be made
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Replace an earlier import
    #[arg(long)]
    force: bool,
}

fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.about));
    // The parser lets nothing through that is not in the table.
    PossibleValuesParser::new(names)
        .map(|name| FORMATS.iter().find(|format| format.name == name).unwrap_or(&FORMATS[0]))
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let (format, file) = (args.format, args.file.clone());
    let Imported { results, notes } = bounded(&[&args.file], move || Ok(read(format, &file)?))?;
    let output = args.dir.join(RESULTS);
    let options = WriteOptions { force: args.force, owner: spark_trace_host::invoker::owner() };
    make_directories(&args.dir, options).map_err(StudyError::io(&args.dir))?;
    recording::write::refuse_existing(&output, options)?;
    recording::write::write_bytes(&json::render(&results)?, &output, options)?;
    let file = escape::line(&output.display().to_string());
    for note in notes {
        eprintln!("spark-trace: note: {}", escape::line(&note));
    }
    eprintln!("spark-trace: wrote {} runs to {file}", results.runs.len());
    Ok(Exit::Fine)
}
