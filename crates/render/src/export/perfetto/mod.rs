//! The course of a run for the Perfetto UI (<https://ui.perfetto.dev>): a counter for each level, the processes with
//! their memory queries, and the phases.

use std::collections::BTreeMap;

use prost::Message;

mod packets;
mod proto;

use super::{Exported, Options};
use crate::escape;
use packets::{Packets, named, number, signed, text};
use proto::{DebugAnnotation, ProcessDescriptor, ThreadDescriptor, TrackDescriptor};
use spark_trace_analysis::engine_run;
use spark_trace_analysis::levels::{self, CUDA, Line, PROCESS};
use spark_trace_analysis::memory_queries::{self, MemoryQueryRow};
use spark_trace_recording::{Process, Recording};

pub fn export(recording: &Recording, _: Options) -> Exported {
    let mut packets = Packets::new(recording);
    let phases = packets.group("Phases");
    for phase in &recording.phases {
        packets.event(phases, phase.at_ns, named(&phase.name, "phase", vec![]));
    }
    stages(&mut packets, recording);
    let (processes, planes): (Vec<_>, Vec<_>) =
        levels::lines(recording).into_iter().partition(|line| line.plane == PROCESS);
    counters(&mut packets, &planes);
    let tracks = all_processes(&mut packets, recording);
    for line in &processes {
        let parent = line.pid.and_then(|pid| tracks.get(&pid)).copied();
        packets.counter(parent, &line.source, &line.points);
    }
    queries(&mut packets, recording);
    Ok(packets.finish().encode_to_vec().into())
}

/// A slice for each stage of an inference engine.
fn stages(packets: &mut Packets, recording: &Recording) {
    let rows = engine_run::stages_of(recording);
    if rows.is_empty() {
        return;
    }
    let group = packets.group("Engine");
    for row in rows {
        let span = (row.span.begin_ns, row.span.end_ns.unwrap_or_else(|| ended_ns(recording)));
        let growth = row.growth_bytes.map(|bytes| signed("device memory", bytes));
        packets.slice(group, span, named(row.stage.as_str(), "stage", growth.into_iter().collect()), |_| {});
    }
}

/// A recording that was cut off has no end: the last reading is.
fn ended_ns(recording: &Recording) -> u64 {
    let target = &recording.target;
    let last_ns = recording.samples.system.end_ns.last().copied().unwrap_or(target.started_ns);
    if target.ended_ns == 0 { last_ns } else { target.ended_ns }
}

/// A group for each plane.
fn counters(packets: &mut Packets, lines: &[Line]) {
    for of_plane in lines.chunk_by(|a, b| (a.plane, &a.object) == (b.plane, &b.object)) {
        let Some(Line { plane, object, .. }) = of_plane.first() else { continue };
        let group = match *plane {
            CUDA => packets.group("CUDA driver: requested bytes"),
            plane => packets.group(&format!("Memory, {plane} plane: {object}")),
        };
        for line in of_plane {
            packets.counter(Some(group), &line.source, &line.points);
        }
    }
}

/// A track for each process, and a slice for its life; the tracks by pid, of one that came again the last.
fn all_processes(packets: &mut Packets, recording: &Recording) -> BTreeMap<u32, u64> {
    let target = &recording.target;
    let ended_ns = ended_ns(recording);
    let mut tracks = BTreeMap::new();
    for process in &recording.provenance.processes {
        let process_track =
            packets.track(TrackDescriptor { process: Some(descriptor(process)), ..Default::default() });
        tracks.insert(process.pid, process_track);
        // One that was there before the trace, or has not ended, fills the trace to its edge.
        let from_ns = process.started_ns.or(process.exec_ns).unwrap_or(target.started_ns);
        let to_ns = process.ended_ns.unwrap_or(ended_ns);
        packets.slice(
            process_track,
            (from_ns, to_ns),
            named(&process.comm, "process", about(process)),
            |packets| {
                if let Some(exec_ns) = process.exec_ns {
                    packets.event(process_track, exec_ns, named("exec", "process", vec![]));
                }
            },
        );
    }
    tracks
}

fn descriptor(process: &Process) -> ProcessDescriptor {
    ProcessDescriptor {
        pid: Some(id(process.pid)),
        cmdline: process.argv.iter().map(|word| escape::line(word)).collect(),
        process_name: Some(escape::line(&process.comm)),
        start_timestamp_ns: process.started_ns.and_then(|ns| i64::try_from(ns).ok()),
    }
}

fn about(process: &Process) -> Vec<DebugAnnotation> {
    let numbers = [
        ("parent", process.parent.map(u64::from)),
        ("rss_peak", process.rss_peak),
        ("exit_status", process.exit_status.map(u64::from)),
    ];
    numbers.into_iter().filter_map(|(name, value)| Some(number(name, value?))).collect()
}

/// Memory queries, on the threads that made them: calls of libraries with what they read themselves inside.
fn queries(packets: &mut Packets, recording: &Recording) {
    let Some(queries) = memory_queries::report(recording) else { return };
    let mut threads = BTreeMap::new();
    for row in &queries.rows {
        let thread = *threads.entry((row.pid, row.tid)).or_insert_with(|| {
            let thread = ThreadDescriptor { pid: Some(id(row.pid)), tid: Some(id(row.tid)) };
            packets.track(TrackDescriptor { thread: Some(thread), ..TrackDescriptor::default() })
        });
        query(packets, thread, row);
    }
}

fn query(packets: &mut Packets, thread: u64, row: &MemoryQueryRow) {
    let event = named(&row.interface, "query", notes_of(row));
    match row.began_ns {
        None => packets.event(thread, row.at_ns, event),
        Some(began_ns) => packets.slice(thread, (began_ns, row.at_ns), event, |packets| {
            row.nested.iter().for_each(|nested| query(packets, thread, nested));
        }),
    }
}

/// The query, its process, the answer, and the state of the machine then.
fn notes_of(row: &MemoryQueryRow) -> Vec<DebugAnnotation> {
    let process = format!("{} ({})", row.comm, row.pid);
    let mut notes =
        vec![text("interface", &row.interface), text("by", &process), text("cgroup", &row.cgroup)];
    let texts = [
        ("directory", row.directory.as_deref()),
        ("answer", row.text.as_deref()),
        ("result", row.result_name),
        ("called from", Some(row.caller.label.as_str()).filter(|label| !label.is_empty())),
    ];
    notes.extend(texts.into_iter().filter_map(|(name, value)| Some(text(name, value?))));
    if row.result != 0 {
        notes.push(signed("result code", row.result.into()));
    }
    notes.extend(row.values.iter().map(|(name, &value)| number(&format!("answer.{name}"), value)));
    if let Some(state) = &row.state {
        let levels =
            [("free", state.free), ("file", state.file), ("shmem", state.shmem), ("anon", state.anon)];
        notes.extend(levels.map(|(name, bytes)| number(&format!("machine.{name}"), bytes)));
        notes.push(number("cgroup.usage", state.cgroup_usage));
    }
    notes
}

fn id(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}
