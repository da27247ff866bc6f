//! Results of studies that were run by other means. One file per format, one row of [`FORMATS`] each.

use std::path::Path;

use super::{Results, StudyError};

mod benchmark_spark;
mod folder;

#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    read: fn(&str) -> Result<Results, String>,
    read_folder: fn(&Path) -> Result<Results, String>,
}

pub const FORMATS: &[Format] = &[Format {
    name: benchmark_spark::FORMAT,
    about: "The published study of TensorRT-LLM on a DGX Spark: all_benchmark_results.json, or a folder of its scripts",
    read: benchmark_spark::read,
    read_folder: folder::read,
}];

pub fn read(format: &'static Format, path: &Path) -> Result<Results, StudyError> {
    let read = if path.is_dir() {
        (format.read_folder)(path)
    } else {
        (format.read)(&std::fs::read_to_string(path).map_err(StudyError::io(path))?)
    };
    let mut results =
        read.map_err(|what| StudyError::Import { path: path.to_owned(), format: format.name, what })?;
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    results.origin = super::results::Origin::Imported { format: format.name.to_owned(), file };
    Ok(results)
}
