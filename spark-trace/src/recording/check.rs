//! What a recording must satisfy beyond its types: vectors that belong together have one length,
//! and indices point at something. Everything that reads recordings relies on it.

use super::provenance::Provenance;
use super::schema::{Recording, Samples, Series};

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
    for (name, values) in &series.columns {
        same_length(what, name, values.len(), readings)?;
    }
    Ok(())
}

fn provenance(provenance: &Provenance) -> Result<(), String> {
    let instants = provenance.instants.len();
    for allocs in &provenance.page_allocs {
        same_length("page_allocs", "live", allocs.live.len(), instants)?;
    }
    for file in &provenance.files {
        same_length("files", "live", file.live.len(), instants)?;
    }
    for charge in &provenance.charges {
        same_length("charges", "net", charge.net.len(), instants)?;
    }
    for row in &provenance.driver_allocs {
        same_length("driver_allocs", "live", row.live.len(), instants)?;
    }
    for row in &provenance.charge_stacks {
        same_length("charge_stacks", "charged", row.charged.len(), instants)?;
    }
    for allocs in &provenance.cuda_allocs {
        same_length("cuda_allocs", "live", allocs.live.len(), instants)?;
    }
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
    fn a_frame_must_have_a_symbol() {
        let mut recording = testing::container();
        recording.provenance.stacks[0].frames.push(u32::MAX);
        assert!(check(&recording).unwrap_err().contains("names symbol 4294967295"));
    }
}
