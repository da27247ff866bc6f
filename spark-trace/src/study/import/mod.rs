//! Results of studies that were run by other means. One file per format, one row of [`FORMATS`] each.

use std::path::Path;

use super::{Results, StudyError};

mod benchmark_spark;

#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    read: fn(&str) -> Result<Results, String>,
}

pub const FORMATS: &[Format] = &[Format {
    name: benchmark_spark::FORMAT,
    about: "all_benchmark_results.json of the published study of TensorRT-LLM on a DGX Spark",
    read: benchmark_spark::read,
}];

pub fn read(format: &'static Format, path: &Path) -> Result<Results, StudyError> {
    let text = std::fs::read_to_string(path).map_err(StudyError::io(path))?;
    let mut results = (format.read)(&text).map_err(|what| StudyError::Import {
        path: path.to_owned(),
        format: format.name,
        what,
    })?;
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    results.origin = super::results::Origin::Imported { format: format.name.to_owned(), file };
    Ok(results)
}
