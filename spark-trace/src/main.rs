use std::process::ExitCode;

fn main() -> ExitCode {
    spark_trace::cli::main(std::env::args_os())
}
