use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use spark_trace_host::output_file::make_directories;
use spark_trace_recording as recording;
use spark_trace_recording::WriteOptions;
use spark_trace_render::escape;
use spark_trace_study as study;
use spark_trace_study::StudyError;
use spark_trace_study::analysis::{self, Options};
use spark_trace_study::report::{FORMATS, Format, Studied, site};

/// Show the verdicts of a study, with their reasons
///
/// Diagnostics come first: if the order of the runs or the state that they began in can have made a difference, the
/// verdict is `confounded` or `not comparable`, whatever p is. A running study is reported up to now.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of the study
    dir: PathBuf,
    /// Folder of the site to write; without it the report is printed
    #[arg(help_heading = headings::OUTPUT, short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_parser = formats(), default_value = "table", conflicts_with = "output")]
    format: &'static Format,
    #[command(flatten)]
    width: output::WidthArg,
    /// Replace the files of an earlier site
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
    /// Level of the tests
    #[arg(help_heading = headings::STATISTICS, long, value_name = "P", default_value_t = Options::default().alpha, value_parser = part)]
    alpha: f64,
    /// Means within this part of the baseline's are equivalent
    #[arg(help_heading = headings::STATISTICS, long, value_name = "PART", default_value_t = Options::default().margin, value_parser = part)]
    margin: f64,
    /// Bootstrap resamples
    #[arg(help_heading = headings::STATISTICS, long, value_name = "N", default_value_t = Options::default().resamples)]
    resamples: usize,
    /// Seed of the bootstrap
    #[arg(help_heading = headings::STATISTICS, long, value_name = "N", default_value_t = Options::default().seed)]
    seed: u64,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study report my-study
  spark-trace study report my-study -o site           # a web site, with figures, tables and data for papers
  spark-trace study report my-study --format latex > table.tex";

fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.about));
    // The parser lets nothing through that is not in the table.
    PossibleValuesParser::new(names)
        .map(|name| FORMATS.iter().find(|format| format.name == name).unwrap_or(&FORMATS[0]))
}

pub fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if part > 0.0 && part < 1.0 => Ok(part),
        _ => Err(format!("`{text}` is no number between 0 and 1")),
    }
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { alpha, margin, resamples, seed, .. } = *args;
    let options = Options { alpha, margin, resamples, seed, ..Options::default() };
    let dir = args.dir.clone();
    let studied = bounded(&[&args.dir], move || {
        let results = study::load(&dir)?;
        ensure!(
            results.runs.iter().any(study::results::Run::counts),
            "{}: no run has succeeded yet, so there is nothing to report; see `spark-trace study status`",
            dir.display()
        );
        Ok(Studied { report: analysis::report(&results, options), results })
    })?;
    match &args.output {
        None => output::print(&(args.format.render)(&studied, output::style(args.width))?),
        Some(dir) => write(
            &studied,
            dir,
            WriteOptions { force: args.force, owner: spark_trace_host::invoker::owner() },
        ),
    }
}

fn write(studied: &Studied, dir: &Path, options: WriteOptions) -> anyhow::Result<Exit> {
    let files = site::files(studied)?;
    for (name, _) in &files {
        let file = dir.join(name);
        let folder = file.parent().unwrap_or(dir);
        make_directories(folder, options).map_err(StudyError::io(folder))?;
    }
    // All or nothing: half a new site beside half an old one is wrong.
    for (name, _) in &files {
        recording::write::refuse_existing(&dir.join(name), options)?;
    }
    for (name, bytes) in &files {
        // To be read by a web server: not with the mode of recordings.
        recording::write::write_public(bytes, &dir.join(name), options)?;
    }
    let index = escape::line(&dir.join("index.html").display().to_string());
    eprintln!("spark-trace: wrote {} files; begin with {index}", files.len());
    Ok(Exit::Fine)
}
