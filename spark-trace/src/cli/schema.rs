use crate::cli::error::Exit;
use crate::cli::output;
use spark_trace_recording::Recording;

/// Print the JSON Schema of the recording format
///
/// The schema is generated from the types that read and write recordings. docs/recording.md explains
/// the fields.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  spark-trace schema > recording.schema.json
  spark-trace schema | jq '.properties | keys'";

pub fn run(Args {}: Args) -> anyhow::Result<Exit> {
    let mut json = serde_json::to_vec_pretty(&schemars::schema_for!(Recording))?;
    json.push(b'\n');
    output::print(&json)
}
