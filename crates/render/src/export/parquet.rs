//! The long table of [`super::table`] as Parquet (<https://parquet.apache.org/docs/file-format/>), with what the
//! recording is of in the file's metadata.

use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::table::seconds;
use super::{Exported, Options};
use crate::escape;
use spark_trace_analysis::levels::{self, Line};
use spark_trace_recording::Recording;

const SCHEMA: &str = "
message levels {
    REQUIRED DOUBLE time_seconds;
    REQUIRED BYTE_ARRAY plane (STRING);
    REQUIRED BYTE_ARRAY object (STRING);
    REQUIRED BYTE_ARRAY source (STRING);
    OPTIONAL INT64 bytes;
}";

/// What writes one column; in the order of [`SCHEMA`].
type Fill = fn(&mut SerializedColumnWriter<'_>, &Recording, &[Line]) -> Result<(), ParquetError>;

const COLUMNS: &[Fill] = &[
    times,
    |column, _, lines| texts(column, lines, |line| line.plane),
    |column, _, lines| texts(column, lines, |line| &line.object),
    |column, _, lines| texts(column, lines, |line| &line.source),
    levels,
];

pub fn export(recording: &Recording, _: Options) -> Exported {
    let lines = levels::lines(recording);
    // Levels change little from one reading to the next; times and names recur in every series.
    let bytes = ColumnPath::from("bytes");
    let properties = WriterProperties::builder()
        .set_created_by(format!("spark-trace version {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata(recording)))
        .set_column_dictionary_enabled(bytes.clone(), false)
        .set_column_encoding(bytes, Encoding::DELTA_BINARY_PACKED)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    if !lines.is_empty() {
        let mut group = writer.next_row_group()?;
        for fill in COLUMNS {
            if let Some(mut column) = group.next_column()? {
                fill(&mut column, recording, &lines)?;
                column.close()?;
            }
        }
        group.close()?;
    }
    Ok(writer.into_inner()?.into())
}

fn times(
    column: &mut SerializedColumnWriter<'_>,
    recording: &Recording,
    lines: &[Line],
) -> Result<(), ParquetError> {
    for line in lines {
        let times: Vec<_> = line.points.iter().map(|(at_ns, _)| seconds(recording, at_ns)).collect();
        column.typed::<DoubleType>().write_batch(&times, None, None)?;
    }
    Ok(())
}

fn texts(
    column: &mut SerializedColumnWriter<'_>,
    lines: &[Line],
    text: fn(&Line) -> &str,
) -> Result<(), ParquetError> {
    for line in lines {
        let text = ByteArray::from(escape::line(text(line)).into_bytes());
        column.typed::<ByteArrayType>().write_batch(&vec![text; line.points.len()], None, None)?;
    }
    Ok(())
}

fn levels(
    column: &mut SerializedColumnWriter<'_>,
    _: &Recording,
    lines: &[Line],
) -> Result<(), ParquetError> {
    for line in lines {
        let known: Vec<_> = line.points.iter().filter_map(|(_, bytes)| bytes).collect();
        let is_known: Vec<_> = line.points.iter().map(|(_, bytes)| i16::from(bytes.is_some())).collect();
        column.typed::<Int64Type>().write_batch(&known, Some(&is_known), None)?;
    }
    Ok(())
}

fn metadata(recording: &Recording) -> Vec<KeyValue> {
    let started = i128::from(recording.target.started_ns) + i128::from(recording.clock.realtime_offset_ns);
    [
        ("spark-trace.schema", recording.schema.clone()),
        ("spark-trace.schema_version", recording.schema_version.to_string()),
        ("spark-trace.version", recording.tool.version.clone()),
        ("spark-trace.target", recording.target.kind.to_string()),
        // When time_seconds is 0.
        ("spark-trace.started_realtime_ns", started.to_string()),
        ("host.kernel", recording.host.kernel.clone()),
        ("host.arch", recording.host.arch.clone()),
        ("host.page_size", recording.host.page_size.to_string()),
        ("host.provenance", recording.host.provenance.clone()),
    ]
    .map(|(key, value)| KeyValue::new(key.to_owned(), escape::line(&value)))
    .into()
}
