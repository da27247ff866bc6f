//! Requests that a benchmark reads, made before the first run that needs them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Event, RunError, Runner, child, fill};
use crate::command;

impl Runner<'_> {
    /// Makes what is missing, for each model that has runs left.
    pub(super) fn dataset(&self, report: &mut dyn FnMut(Event<'_>)) -> Result<(), RunError> {
        let plan = &self.state.plan;
        let Some(dataset) = &plan.dataset else { return Ok(()) };
        let Some(environment) = plan.environment(&dataset.environment) else { return Ok(()) };
        for model in &plan.models {
            if !self.state.left().any(|slot| slot.model == model.name) {
                continue;
            }
            let values = self.values(environment, model, 0, &self.options.dir);
            let file = PathBuf::from(values.fill(&dataset.file).map_err(RunError::Command)?);
            if file.exists() {
                continue;
            }
            let wrapped = |words: &[String]| {
                let words = fill(&values, words)?;
                command::wrapped(environment, &values, words).map_err(RunError::Command)
            };
            let mut refusal = None;
            let way = dataset.ways.iter().find(|way| {
                // A way without a probe is taken as it is.
                let tried = match way.probe.is_empty() {
                    true => Ok(()),
                    false => wrapped(&way.probe).and_then(|line| child::quiet(&line)),
                };
                tried.map_err(|error| refusal = Some(error)).is_ok()
            });
            let Some(way) = way else {
                let none =
                    || RunError::Command(format!("{}: the plan has no way to make it", file.display()));
                return Err(refusal.unwrap_or_else(none));
            };
            let line = wrapped(&way.command)?;
            report(Event::Command(&line));
            child::quiet(&line)?;
            take_name(&file)?;
        }
        Ok(())
    }
}

/// The whole file takes its name; one that was cut off never does.
fn take_name(file: &Path) -> Result<(), RunError> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let wrong = |source| RunError::Io { path: part.clone(), source };
    let about = fs::symlink_metadata(&part).map_err(wrong)?;
    if !about.is_file() || about.len() == 0 {
        return Err(wrong(io::Error::other("no file with requests in it")));
    }
    fs::rename(&part, file).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d.jsonl");
        assert!(take_name(&file).is_err());
        let part = dir.path().join("d.jsonl.part");
        fs::write(&part, "").unwrap();
        assert!(take_name(&file).is_err());
        fs::write(&part, "{}").unwrap();
        take_name(&file).unwrap();
        assert!(file.is_file() && !part.exists());
    }
}
