//! The folder of results that brandonrc/benchmark-spark's scripts write: `*_metadata.json` and `*.log` of each run, and CSV
//! files of `monitor_memory.sh`, whose names say nothing of the run: their times do. The scripts put them into several
//! folders below one, so those are looked at, too; phase 2 writes logs alone, whose names say which run they are of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Imported;
use super::benchmark_spark::{Record, of_runs, run, seconds};
use super::run_name::{self, RunName};
use crate::results::Run;
use crate::{figures, read_bytes, read_text};

const METADATA: &str = "_metadata.json";
const LOG: &str = ".log";
const GIB_OF_MB: f64 = 1024.0;
/// `sys_mem_total_mb` and what follows it, from the end of a line: nvidia-smi fills six or seven columns before them.
const FROM_THE_END: usize = 7;

/// Folders below folders that are looked at, and files in all of them: the scripts make three and some hundred.
const MOST_FOLDERS_DEEP: usize = 5;
const MOST_FILES: usize = 100_000;

/// What a monitor saw of one run, GiB. `sys_mem_used_mb` is MemTotal less MemAvailable and is left out: it hides page cache.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    total: f64,
    lowest_free: f64,
    lowest_available: f64,
}

pub fn read(dir: &Path) -> Result<Imported, String> {
    let files = files(dir)?;
    let ends_with =
        |end: &'static str| files.iter().filter(move |path| path.to_string_lossy().ends_with(end));
    let mut runs = vec![];
    for path in ends_with(METADATA) {
        runs.push(one(path)?);
    }
    let mut by_name = 0;
    for path in ends_with(LOG) {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if path.with_file_name(format!("{stem}{METADATA}")).exists() {
            continue;
        }
        let Some(name) = run_name::of(&stem) else { continue };
        runs.push(named(path, name)?);
        by_name += 1;
    }
    runs.sort_by(|a: &Run, b: &Run| {
        a.started_s.partial_cmp(&b.started_s).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut monitors = 0;
    for path in ends_with(".csv") {
        let text = read_text(path).map_err(|e| e.to_string())?;
        let Some((at, seen)) = monitored(&text) else { continue };
        monitors += 1;
        // The last run that had begun by then.
        if let Some(run) =
            runs.iter_mut().rev().find(|run| run.started_s.is_some_and(|started| started <= at + 60.0))
        {
            run.metrics.extend([
                ("system-used".to_owned(), seen.total - seen.lowest_free),
                ("lowest-free".to_owned(), seen.lowest_free),
                ("lowest-available".to_owned(), seen.lowest_available),
            ]);
        }
    }
    if runs.is_empty() {
        return Err(format!(
            "there is neither a *{METADATA} of a run below it nor a log called MODEL_ENVIRONMENT_iterN_DATE_TIME.log"
        ));
    }
    let notes = notes(&runs, by_name, monitors);
    Ok(Imported { results: of_runs(runs)?, notes })
}

/// What the reader of the runs should know.
fn notes(runs: &[Run], by_name: usize, monitors: usize) -> Vec<String> {
    let mut notes = vec![];
    if by_name > 0 {
        notes.push(format!(
            "{by_name} of {} runs have a log and no *{METADATA}: model, environment, iteration and time are those of the \
             log's name, and whether the run failed is unknown",
            runs.len()
        ));
    }
    let unwatched = runs.iter().filter(|run| !run.metrics.contains_key("lowest-free")).count();
    if unwatched > 0 {
        notes.push(format!(
            "no CSV file of a memory monitor was found for {unwatched} of {} runs ({monitors} such files in all): the \
             scripts put them into folders beside that of the logs, so give the folder above both",
            runs.len()
        ));
    }
    notes
}

/// All files below a folder, in the order of their names. Links are not followed.
fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = vec![];
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < MOST_FOLDERS_DEEP => {
                    folders.push((entry.path(), depth + 1))
                }
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
        if files.len() > MOST_FILES {
            return Err(format!(
                "there are more than {MOST_FILES} files below it: give the folder of the results"
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// A run with the figures of its log, where there is one.
fn one(metadata: &Path) -> Result<Run, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", metadata.display());
    let text = read_text(metadata).map_err(|e| wrong(&e))?;
    let record: Record = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
    let (model, environment) = (record.model_name.clone(), record.environment.clone());
    let named = || Some((model?, environment?));
    let (model, environment) = named().ok_or_else(|| wrong(&"neither model_name nor environment"))?;
    let mut run = run(&model, &environment, record)?;
    let log = PathBuf::from(metadata.to_string_lossy().replace(METADATA, LOG));
    run.metrics.extend(figures_of(&log));
    Ok(run)
}

/// A run that has nothing but its log.
fn named(log: &Path, name: RunName) -> Result<Run, String> {
    Ok(Run {
        attempt: 1,
        environment: name.environment,
        model: name.model,
        iteration: name.iteration,
        started_s: Some(seconds(&name.timestamp)?),
        metrics: figures_of(log),
        ..Run::default()
    })
}

fn figures_of(log: &Path) -> BTreeMap<String, f64> {
    match read_bytes(log) {
        Ok(text) => figures::of(None, &String::from_utf8_lossy(&text), &[], &[]).metrics,
        Err(_) => BTreeMap::new(),
    }
}

/// When a monitor began, and what it saw. Nothing where the file is another one.
fn monitored(text: &str) -> Option<(f64, Seen)> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split(',').collect();
    if header.get(header.len().checked_sub(FROM_THE_END)?) != Some(&"sys_mem_total_mb") {
        return None;
    }
    let (mut began, mut seen) = (None, None::<Seen>);
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let Some(first) = fields.len().checked_sub(FROM_THE_END) else { continue };
        let number =
            |place: usize| fields.get(first + place)?.trim().parse::<f64>().ok().map(|mb| mb / GIB_OF_MB);
        let (Some(total), Some(free), Some(available)) = (number(0), number(2), number(3)) else { continue };
        began = began.or_else(|| clock(fields.first()?));
        let before = seen.unwrap_or(Seen { total, lowest_free: free, lowest_available: available });
        seen = Some(Seen {
            total,
            lowest_free: before.lowest_free.min(free),
            lowest_available: before.lowest_available.min(available),
        });
    }
    began.zip(seen)
}

/// `2025-11-09 02:26:26.123` in the clock of the metadata.
fn clock(text: &str) -> Option<f64> {
    let digits: String = text.chars().take(19).filter(char::is_ascii_digit).collect();
    seconds(&format!("{}_{}", digits.get(..8)?, digits.get(8..14)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "timestamp,gpu_util_%,gpu_mem_util_%,gpu_mem_used_mb,gpu_mem_free_mb,gpu_temp_c,gpu_power_w,\
                          gpu_sm_clock_mhz,sys_mem_total_mb,sys_mem_used_mb,sys_mem_free_mb,sys_mem_available_mb,\
                          sys_mem_percent,container_mem_mb,container_mem_percent";

    #[test]
    fn a_folder_of_the_scripts_is_read_with_its_monitors() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        for (environment, hour) in [("native", 2), ("container", 4)] {
            let prefix = format!("{environment}_m_iter1_20251109_0{hour}0000");
            write(
                &format!("{prefix}{METADATA}"),
                &format!(
                    "{{\"environment\": \"{environment}\", \"model_name\": \"m\", \"model_id\": \"x/m\", \"model_path\": \"/m\", \
                     \"iteration\": 1, \"timestamp\": \"20251109_0{hour}0000\", \"start_temp_celsius\": 40, \
                     \"end_temp_celsius\": 60, \"exit_code\": 0}}"
                ),
            );
            write(&format!("{prefix}.log"), "Total Output Throughput (tokens/sec):   120.5\n");
        }
        // dmon fills a column less than the header has.
        write(
            "memory_1.csv",
            &format!(
                "{HEADER}\n2025-11-09 04:00:07.001,1,2,3,4,5,6,122880,20480,81920,102400,16.7,-1,-1\n\
                 2025-11-09 04:10:00.001,1,2,3,4,5,6,7,122880,20480,20480,102400,16.7,-1,-1\nbroken\n"
            ),
        );
        write("other.csv", "a,b\n1,2\n");
        let Imported { results, notes } = read(dir.path()).unwrap();
        assert!(
            notes.len() == 1 && notes[0].starts_with("no CSV file of a memory monitor was found for 1 of 2"),
            "{notes:?}"
        );
        assert_eq!(results.environments, ["native", "container"]);
        let container = &results.runs[1];
        assert_eq!(container.metrics["system-used"], 100.0);
        assert_eq!((container.metrics["lowest-free"], container.metrics["lowest-available"]), (20.0, 100.0));
        assert_eq!(container.metrics["output-throughput"], 120.5);
        assert!(!results.runs[0].metrics.contains_key("lowest-free"));
    }

    #[test]
    fn folders_below_are_read_and_logs_alone_are_runs_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "phase2/logs/m-7B_container_baseline_iter2_20251121_010000.log",
            "Total Output Throughput (tokens/sec): 119.5\n",
        );
        write(
            "phase2/logs/m-7B_native_iter2_20251121_020000.log",
            "Total Output Throughput (tokens/sec): 120.5\n",
        );
        write("phase2/logs/notes.log", "nothing");
        write(
            "phase2/native/monitor.csv",
            &format!("{HEADER}\n2025-11-21 02:00:07.001,1,2,3,4,5,6,122880,20480,81920,102400,16.7,-1,-1\n"),
        );
        let Imported { results, notes } = read(dir.path()).unwrap();
        assert_eq!((results.environments.len(), results.models), (2, vec!["m-7B".to_owned()]));
        let run = results.runs.iter().find(|run| run.environment == "native").unwrap();
        assert_eq!(
            (run.iteration, run.metrics["output-throughput"], run.metrics["lowest-free"]),
            (2, 120.5, 80.0)
        );
        assert!(
            notes.iter().any(|note| note.contains("2 of 2 runs have a log and no *_metadata.json")),
            "{notes:?}"
        );
        assert!(notes.iter().any(|note| note.contains("was found for 1 of 2 runs")), "{notes:?}");
    }

    #[test]
    fn a_folder_without_runs_is_refused() {
        assert!(read(tempfile::tempdir().unwrap().path()).is_err());
    }
}
