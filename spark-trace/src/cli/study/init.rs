use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use spark_trace_recording as recording;
use spark_trace_recording::WriteOptions;
use spark_trace_render::escape;
use spark_trace_study::templates::{TEMPLATES, Template, find};

/// Write a plan from a template
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File to write; `-` prints it
    #[arg(default_value = "study.toml", value_name = "FILE")]
    output: PathBuf,
    /// Template to begin with
    #[arg(long, value_parser = templates(), default_value = "quick")]
    template: &'static Template,
    /// Replace an existing file
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study init
  spark-trace study init --template phase2-baseline baseline.toml
  spark-trace study init --template demo -";

fn templates() -> impl TypedValueParser<Value = &'static Template> {
    let names = TEMPLATES.iter().map(|template| PossibleValue::new(template.name).help(template.about));
    // The parser lets nothing through that is not in the table.
    PossibleValuesParser::new(names).map(|name| find(&name).unwrap_or(&TEMPLATES[0]))
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.output == Path::new("-") {
        return output::print(args.template.text.as_bytes());
    }
    let options = WriteOptions { force: args.force, owner: spark_trace_host::invoker::owner() };
    recording::write::refuse_existing(&args.output, options)?;
    recording::write::write_bytes(args.template.text.as_bytes(), &args.output, options)?;
    let file = escape::line(&args.output.display().to_string());
    eprintln!("spark-trace: wrote {file}; look at it, then: spark-trace study check {file}");
    Ok(Exit::Fine)
}
