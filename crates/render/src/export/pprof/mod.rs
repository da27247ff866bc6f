//! Bytes by stack as a profile for pprof: gzip of its protocol buffer.
//!
//! Each provenance has sample types of its own, so a profile's total is never a sum of kinds that overlap.

use spark_trace_analysis::signed::signed;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

mod proto;
mod tables;

use super::{Content, ExportError, Exported, Options};
use proto::{Label, Sample, ValueType};
use spark_trace_analysis::attribution;
use spark_trace_analysis::stack_bytes::{self, Provenance, StackBytes};
use spark_trace_recording::Recording;
use tables::Tables;

/// Sample types of a provenance: what is added to its name, the unit, and the value.
type Type = (&'static str, &'static str, fn(&StackBytes) -> u64);

const TYPES: &[Type] = &[("space", "bytes", |row| row.bytes), ("allocs", "count", |row| row.allocs)];

pub fn export(recording: &Recording, options: Options) -> Exported {
    let at_ns = attribution::report(recording, options.at).details_at_ns;
    let rows = stack_bytes::rows(recording, at_ns);
    if rows.is_empty() {
        return Err(ExportError::NoStacks { wanted: None });
    }
    let mut tables = Tables::new(recording);
    for (provenance, _) in &rows {
        for (what, unit, _) in TYPES {
            let (r#type, unit) = (tables.string(&format!("{}_{what}", provenance.name)), tables.string(unit));
            tables.profile.sample_type.push(ValueType { r#type, unit });
        }
    }
    let types = tables.profile.sample_type.len();
    for (place, (provenance, rows)) in rows.iter().enumerate() {
        for row in rows {
            let mut value = vec![0; types];
            let values = value.iter_mut().skip(place * TYPES.len());
            for (value, (_, _, of)) in values.zip(TYPES) {
                *value = signed(of(row));
            }
            let label = labels(&mut tables, provenance, row);
            let location_id = tables.stack(row.stack);
            tables.profile.sample.push(Sample { location_id, value, label });
        }
    }
    let about = format!(
        "spark-trace {}: {}; {} target on {}. Kinds overlap: do not sum them.",
        recording.tool.version,
        options.at.of_a_run(),
        recording.target.kind,
        recording.host.kernel
    );
    let comment = tables.string(&about);
    let target = &recording.target;
    let profile = &mut tables.profile;
    profile.comment = vec![comment];
    profile.default_sample_type = profile.sample_type.first().map_or(0, |first| first.r#type);
    let started = i128::from(target.started_ns) + i128::from(recording.clock.realtime_offset_ns);
    profile.time_nanos = i64::try_from(started).unwrap_or(0);
    profile.duration_nanos = i64::try_from(target.ended_ns.saturating_sub(target.started_ns)).unwrap_or(0);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&profile.encode_to_vec()).map_err(ExportError::Compress)?;
    encoder.finish().map(Content::Bytes).map_err(ExportError::Compress)
}

fn labels(tables: &mut Tables<'_>, provenance: &Provenance, row: &StackBytes) -> Vec<Label> {
    let texts = [
        ("plane", provenance.plane.map(|plane| plane.as_str())),
        ("provenance", Some(provenance.name)),
        ("kind", Some(row.kind.as_str())),
        ("source", row.source),
        ("cgroup", row.cgroup.as_deref()),
        ("comm", row.comm.as_deref()),
        ("function", row.function.as_deref()),
    ];
    let mut labels: Vec<_> = texts
        .into_iter()
        .filter_map(|(key, text)| Some((key, text.filter(|text| !text.is_empty())?)))
        .map(|(key, text)| Label { key: tables.string(key), str: tables.string(text), num: 0 })
        .collect();
    labels.extend(row.pid.map(|pid| Label { key: tables.string("pid"), str: 0, num: pid.into() }));
    labels
}
