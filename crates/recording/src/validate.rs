//! What a recording must satisfy beyond its types: vectors that belong together have one length,
//! indices point at something, and numbers of bytes are such that their sums are numbers, too. Everything that reads
//! recordings relies on it.

use super::column::{Column, Value};
use super::provenance::Provenance;
use super::schema::{Recording, Samples, Series};

/// No number of bytes, pages or events is larger: 64 PiB. A hundred of them can be added up.
const LARGEST: u64 = 1 << 56;

/// What cgroup v1 has where there is no limit: `PAGE_COUNTER_MAX` pages (include/linux/page_counter.h), of any size
/// of page, and not a multiple of more.
const NO_LIMIT: std::ops::RangeInclusive<u64> = (i64::MAX as u64 - (1 << 16) + 1)..=i64::MAX as u64;

/// No time is later, nanoseconds: the year 2116 of the clock that counts from 1970.
const LATEST_NS: u64 = 1 << 62;

/// Says what does not fit together, if anything does not.
pub(super) fn check(recording: &Recording) -> Result<(), String> {
    samples(&recording.samples)?;
    provenance(&recording.provenance)
}

fn samples(samples: &Samples) -> Result<(), String> {
    series("samples.system", &samples.system)?;
    series("samples.cuda", &samples.cuda)?;
    for cgroup in &samples.cgroups {
        series(&format!("samples of cgroup {}", cgroup.path), &cgroup.series)?;
    }
    for process in &samples.processes {
        series(&format!("samples of process {}", process.pid), &process.series)?;
    }
    for device in &samples.devices {
        series(&format!("samples of device {}", device.index), &device.series)?;
    }
    Ok(())
}

fn series(what: &str, series: &Series) -> Result<(), String> {
    let readings = series.begin_ns.len();
    same_length(what, "end_ns", series.end_ns.len(), readings)?;
    times(what, series.begin_ns.iter().chain(&series.end_ns).copied())?;
    for (name, values) in &series.columns {
        same_length(what, name, values.len(), readings)?;
        let is_none = |value: &u64| name.contains("limit") && NO_LIMIT.contains(value);
        let known = values.known().filter(|value| !is_none(value));
        possible(what, name, known.map(i128::from))?;
    }
    Ok(())
}

/// Bytes, pages or events.
fn possible(what: &str, column: &str, values: impl IntoIterator<Item = i128>) -> Result<(), String> {
    match values.into_iter().find(|value| value.unsigned_abs() > LARGEST.into()) {
        None => Ok(()),
        Some(value) => Err(format!("{what}: `{column}` is {value}, which no machine can have")),
    }
}

fn times(what: &str, mut times_ns: impl Iterator<Item = u64>) -> Result<(), String> {
    match times_ns.find(|time| *time > LATEST_NS) {
        None => Ok(()),
        Some(time) => Err(format!("{what}: {time} ns is no time that a clock can have come to")),
    }
}

fn provenance(provenance: &Provenance) -> Result<(), String> {
    times("instants", provenance.instants.iter().map(|instant| instant.at_ns))?;
    let instants = provenance.instants.len();
    for row in &provenance.page_allocs {
        column("page_allocs", "live", &row.live, instants)?;
        possible("page_allocs", "bytes", [row.bytes_allocated, row.bytes_freed].map(i128::from))?;
    }
    for row in &provenance.files {
        column("files", "live", &row.live, instants)?;
        let bytes = [Some(row.bytes_added), Some(row.bytes_removed), row.before];
        possible("files", "bytes", bytes.into_iter().flatten().map(i128::from))?;
    }
    for row in &provenance.charges {
        column("charges", "net", &row.net, instants)?;
    }
    for row in &provenance.charge_levels {
        let bytes = [row.seed.unwrap_or_default(), row.corrected].map(i128::from);
        let counted = [row.bytes_charged, row.bytes_uncharged].map(i128::from);
        possible("charge_levels", "bytes", bytes.into_iter().chain(counted))?;
    }
    for row in &provenance.driver_allocs {
        column("driver_allocs", "live", &row.live, instants)?;
        possible("driver_allocs", "bytes", [row.bytes_allocated, row.bytes_freed].map(i128::from))?;
    }
    for row in &provenance.charge_stacks {
        column("charge_stacks", "charged", &row.charged, instants)?;
        possible("charge_stacks", "bytes_charged", [i128::from(row.bytes_charged)])?;
    }
    for row in &provenance.cuda_allocs {
        column("cuda_allocs", "live", &row.live, instants)?;
        possible("cuda_allocs", "bytes", [row.bytes_allocated, row.bytes_freed].map(i128::from))?;
    }
    let bytes = provenance.cuda_largest.iter().map(|row| i128::from(row.bytes));
    possible("cuda_largest", "bytes", bytes)?;
    times("mappings", provenance.mappings.iter().map(|mapping| mapping.at_ns))?;
    times("brief_mappings", provenance.brief_mappings.iter().map(|row| row.last_ns))?;
    possible("mappings", "length", provenance.mappings.iter().map(|mapping| mapping.length.into()))?;
    let contexts = provenance.contexts.len();
    for process in &provenance.processes {
        if let Some(context) = process.context.filter(|&context| context as usize >= contexts) {
            return Err(format!("process {} names context {context} of {contexts}", process.pid));
        }
    }
    let symbols = provenance.symbols.len();
    for stack in &provenance.stacks {
        if let Some(frame) = stack.frames.iter().find(|&&frame| frame as usize >= symbols) {
            return Err(format!("stack {} names symbol {frame} of {symbols}", stack.id));
        }
    }
    Ok(())
}

/// Of bytes, one for each instant.
fn column<T: Value + Into<i128>>(
    what: &str,
    name: &str,
    column: &Column<T>,
    instants: usize,
) -> Result<(), String> {
    same_length(what, name, column.len(), instants)?;
    possible(what, name, column.known().map(Into::into))
}

fn same_length(what: &str, column: &str, found: usize, wanted: usize) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: `{column}` has {found} elements, {wanted} belong there"))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_whole_recording_passes() {
        assert_eq!(check(&testing::container()), Ok(()));
        assert_eq!(check(&testing::gpus()), Ok(()));
    }

    #[test]
    fn a_short_column_is_named() {
        let mut recording = testing::container();
        recording.samples.system.columns.get_mut("meminfo.AnonPages").unwrap().resize(1);
        assert!(check(&recording).unwrap_err().contains("`meminfo.AnonPages`"));
    }

    #[test]
    fn a_short_column_of_a_device_is_named() {
        let mut recording = testing::gpus();
        recording.samples.devices[0].series.end_ns.pop();
        assert!(check(&recording).unwrap_err().starts_with("samples of device 0: `end_ns`"));
    }

    #[test]
    fn a_live_vector_must_fit_the_instants() {
        let mut recording = testing::container();
        recording.provenance.files[0].live.push(None);
        assert!(check(&recording).unwrap_err().starts_with("files: `live`"));
    }

    #[test]
    fn a_process_names_a_context_that_is_there() {
        let mut recording = testing::container();
        recording.provenance.processes[0].context = Some(recording.provenance.contexts.len() as u32);
        assert!(check(&recording).unwrap_err().contains("names context"));
    }

    #[test]
    fn bytes_that_cannot_be_added_up_are_refused() {
        let mut recording = testing::container();
        recording.provenance.files[0].live.set(0, Some(i64::MIN));
        assert!(check(&recording).unwrap_err().starts_with("files: `live` is -9223372036854775808"));
        let mut recording = testing::container();
        recording.samples.system.begin_ns[0] = u64::MAX;
        assert!(check(&recording).unwrap_err().contains("no time"));
        let mut recording = testing::container();
        // No limit, as cgroup v1 says it with pages of 64 KiB; anything else cannot have so much.
        let mut most = recording.samples.system.columns["meminfo.AnonPages"].clone();
        most.set(0, Some(i64::MAX as u64 - 0xffff));
        recording.samples.system.columns.insert("memory.limit_in_bytes".to_owned(), most.clone());
        assert_eq!(check(&recording), Ok(()));
        recording.samples.system.columns.insert("meminfo.AnonPages".to_owned(), most);
        assert!(check(&recording).unwrap_err().contains("`meminfo.AnonPages` is 9223372036854710272"));
    }

    #[test]
    fn a_frame_must_have_a_symbol() {
        let mut recording = testing::container();
        recording.provenance.stacks[0].frames.push(u32::MAX);
        assert!(check(&recording).unwrap_err().contains("names symbol 4294967295"));
    }
}
