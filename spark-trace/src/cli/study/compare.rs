use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::report::part;
use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use spark_trace_study as study;
use spark_trace_study::analysis::{Options, across};
use spark_trace_study::report::across::{FORMATS, Format};

/// Compare two stored studies: what changed from one to the other
///
/// Models, environments and metrics of the same names are compared, and what the environments of each study differ by. Facts that differ
/// are listed: a difference may come from any of them. Figures are not compared if what was measured differs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of the study that is the baseline
    a: PathBuf,
    /// Folder of the other study
    b: PathBuf,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_parser = formats(), default_value = "table")]
    format: &'static Format,
    #[command(flatten)]
    width: output::WidthArg,
    /// Level of the tests
    #[arg(help_heading = headings::STATISTICS, long, value_name = "P", default_value_t = Options::default().alpha, value_parser = part)]
    alpha: f64,
    /// Means within this part of the baseline's are equivalent
    #[arg(help_heading = headings::STATISTICS, long, value_name = "PART", default_value_t = Options::default().margin, value_parser = part)]
    margin: f64,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study compare before-update after-update
  spark-trace study compare phase1 phase2 --format json";

fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.about));
    // The parser lets nothing through that is not in the table.
    PossibleValuesParser::new(names)
        .map(|name| FORMATS.iter().find(|format| format.name == name).unwrap_or(&FORMATS[0]))
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let Args { alpha, margin, .. } = *args;
    let options = Options { alpha, margin, ..Options::default() };
    let dirs = [args.a.clone(), args.b.clone()];
    let found = bounded(&[&args.a, &args.b], move || {
        let [a, b] = dirs.each_ref().map(|dir| study::stored(dir));
        let (a, b) = (a?, b?);
        for (dir, stored) in dirs.iter().zip([&a, &b]) {
            ensure!(
                stored.results.runs.iter().any(study::results::Run::counts),
                "{}: no run has succeeded yet, so there is nothing to compare; see `spark-trace study status`",
                dir.display()
            );
        }
        across::compare(&a, &b, options)
            .with_context(|| format!("{} and {} cannot be compared", dirs[0].display(), dirs[1].display()))
    })?;
    output::print(&(args.format.render)(&found, output::style(args.width))?)
}
