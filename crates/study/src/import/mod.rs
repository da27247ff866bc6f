//! Results of studies that were run by other means. One file per format, one row of [`FORMATS`] each.

use std::path::Path;

use super::{Results, StudyError};

pub mod benchmark_spark;
mod folder;
mod run_name;

/// What was read, and what the reader should know of it.
#[derive(Debug)]
pub struct Imported {
    pub results: Results,
    /// What was not found, or had to be taken from somewhere else: a sentence each.
    pub notes: Vec<String>,
}

#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    read: fn(&str) -> Result<Results, String>,
    read_folder: fn(&Path) -> Result<Imported, String>,
}

pub const FORMATS: &[Format] = &[Format {
    name: benchmark_spark::FORMAT,
    about: "The published study of TensorRT-LLM on a DGX Spark: all_benchmark_results.json, or a folder of its scripts",
    read: benchmark_spark::read,
    read_folder: folder::read,
}];

pub fn read(format: &'static Format, path: &Path) -> Result<Imported, StudyError> {
    let read = if path.is_dir() {
        (format.read_folder)(path)
    } else {
        let text = super::read_text(path)?;
        (format.read)(&text).map(|results| Imported { results, notes: vec![] })
    };
    let mut imported =
        read.map_err(|what| StudyError::Import { path: path.to_owned(), format: format.name, what })?;
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    imported.results.origin = super::results::Origin::Imported { format: format.name.to_owned(), file };
    Ok(imported)
}
