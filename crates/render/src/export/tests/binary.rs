use std::io::Read;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::RowAccessor;
use bytes_of::{Field, fields};
use libdd_profiling_protobuf::prost_impls::{Message, Profile};

use super::*;
use spark_trace_analysis::attribution;
use spark_trace_analysis::levels::PROCESS;
use spark_trace_analysis::stack_bytes;

/// Protocol buffers as the protobuf crate takes them apart, without knowing the messages.
mod bytes_of {
    use protobuf::CodedInputStream;

    #[derive(Debug, Clone)]
    pub enum Field {
        Number(u64),
        Bytes(Vec<u8>),
    }

    impl Field {
        pub fn number(&self) -> u64 {
            match self {
                Self::Number(number) => *number,
                Self::Bytes(_) => panic!("no number: {self:?}"),
            }
        }

        pub fn bytes(&self) -> &[u8] {
            match self {
                Self::Bytes(bytes) => bytes,
                Self::Number(_) => panic!("no bytes: {self:?}"),
            }
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.bytes().to_vec()).unwrap()
        }
    }

    pub fn fields(message: &[u8]) -> Vec<(u32, Field)> {
        let mut input = CodedInputStream::from_bytes(message);
        let mut fields = vec![];
        while let Some(tag) = input.read_raw_tag_or_eof().unwrap() {
            let field = match tag & 7 {
                0 => Field::Number(input.read_uint64().unwrap()),
                2 => Field::Bytes(input.read_bytes().unwrap()),
                wire => panic!("nothing here has wire type {wire}"),
            };
            fields.push((tag >> 3, field));
        }
        fields
    }
}

fn all_of(message: &[u8], number: u32) -> Vec<Field> {
    fields(message).into_iter().filter(|(field, _)| *field == number).map(|(_, field)| field).collect()
}

fn one(message: &[u8], number: u32) -> Option<Field> {
    all_of(message, number).into_iter().next()
}

/// A track of a trace: its name, its parent and its points.
#[derive(Debug, Default)]
struct Track {
    name: Option<String>,
    parent: Option<u64>,
    is_bytes: bool,
    points: Vec<(u64, i64)>,
}

fn tracks(trace: &[u8]) -> BTreeMap<u64, Track> {
    let mut tracks: BTreeMap<u64, Track> = BTreeMap::new();
    for packet in all_of(trace, 1) {
        let packet = packet.bytes();
        if let Some(descriptor) = one(packet, 60) {
            let descriptor = descriptor.bytes();
            let counter = one(descriptor, 8);
            let track = Track {
                name: one(descriptor, 2).map(|name| name.text()),
                parent: one(descriptor, 5).map(|parent| parent.number()),
                is_bytes: counter.is_some_and(|counter| one(counter.bytes(), 3).unwrap().number() == 3),
                points: vec![],
            };
            let uuid = one(descriptor, 1).unwrap().number();
            assert!(uuid != 0 && tracks.insert(uuid, track).is_none(), "{uuid} is there twice");
        }
        let Some(event) = one(packet, 11) else { continue };
        let event = event.bytes();
        assert_eq!(one(packet, 58).unwrap().number(), 3, "CLOCK_MONOTONIC");
        // Nothing happens on a track that was not described.
        let track = tracks.get_mut(&one(event, 11).unwrap().number()).unwrap();
        if one(event, 9).unwrap().number() == 4 {
            let value = one(event, 30).unwrap().number() as i64;
            track.points.push((one(packet, 8).unwrap().number(), value));
        }
    }
    tracks
}

#[test]
fn perfetto_has_every_level_of_the_views() {
    for recording in all() {
        let trace = export("perfetto", &recording, Options::default());
        let tracks = tracks(&trace);
        let mut counters = 0;
        for object in levels::objects(&recording) {
            let name = format!("Memory, {} plane: {}", object.view.scope.as_str(), object.name);
            let (group, _) = tracks.iter().find(|(_, track)| track.name.as_ref() == Some(&name)).unwrap();
            for (_, track) in tracks.iter().filter(|(_, track)| track.parent == Some(*group)) {
                assert!(track.is_bytes);
                let source = track.name.as_deref().unwrap();
                let of_view = object.view.times().into_iter().filter_map(|at_ns| {
                    let balance = object.view.at(at_ns);
                    let level = match source {
                        COUNTER => levels::counter(&balance),
                        slug => level_of(&balance, slug),
                    };
                    Some((at_ns, level?))
                });
                assert_eq!(track.points, of_view.collect::<Vec<_>>(), "{name} {source}");
                counters += 1;
            }
        }
        let lines = levels::lines(&recording);
        let expected = lines.iter().filter(|line| ![PROCESS, levels::CUDA].contains(&line.plane)).count();
        assert_eq!(counters, expected);
    }
}

#[test]
fn perfetto_has_the_calendar_and_the_queries() {
    let mut recording = testing::cuda();
    recording.clock.realtime_offset_ns = 1_700_000_000 * SECOND as i64;
    let trace = export("perfetto", &recording, Options::default());
    let packets = all_of(&trace, 1);
    let snapshot = one(packets[0].bytes(), 6).unwrap();
    let clocks: Vec<_> = all_of(snapshot.bytes(), 1)
        .iter()
        .map(|clock| (one(clock.bytes(), 1).unwrap().number(), one(clock.bytes(), 2).unwrap().number()))
        .collect();
    let started = recording.target.started_ns;
    assert_eq!(clocks, [(3, started), (1, started + 1_700_000_000 * SECOND)]);

    let events: Vec<_> = packets.iter().filter_map(|packet| one(packet.bytes(), 11)).collect();
    let of_category = |category: &str| {
        let is = |event: &&Field| one(event.bytes(), 22).is_some_and(|name| name.text() == category);
        events.iter().filter(is).collect::<Vec<_>>()
    };
    assert_eq!(of_category("query").len(), recording.provenance.queries.len());
    assert_eq!(of_category("phase").len(), recording.phases.len());
    let mut begun = 0;
    for event in &events {
        match one(event.bytes(), 9).unwrap().number() {
            1 => begun += 1,
            2 => begun -= 1,
            _ => {}
        }
        assert!(begun >= 0);
    }
    assert_eq!(begun, 0, "what begins ends");
    let call = of_category("query")
        .into_iter()
        .find(|event| one(event.bytes(), 23).unwrap().text() == "cuMemGetInfo_v2");
    let notes: BTreeMap<_, _> = all_of(call.unwrap().bytes(), 4)
        .iter()
        .map(|note| {
            let value = one(note.bytes(), 3).or_else(|| one(note.bytes(), 6)).unwrap();
            (one(note.bytes(), 10).unwrap().text(), value)
        })
        .collect();
    assert_eq!(notes["answer.free"].number(), 12000 << 20);
    assert!(notes["by"].text().starts_with("python3 ("));
}

fn profile(recording: &Recording, at: InstantSpec) -> Profile {
    let packed = export("pprof", recording, Options { at, ..Options::default() });
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    Profile::decode(&bytes[..]).unwrap()
}

#[test]
fn pprof_has_what_every_stack_holds() {
    for recording in all() {
        for at in [InstantSpec::Peak, InstantSpec::End] {
            let profile = profile(&recording, at);
            let text = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
            let details_at = attribution::report(&recording, at).details_at_ns;
            let provenances = stack_bytes::rows(&recording, details_at);
            let types: Vec<_> =
                profile.sample_types.iter().map(|kind| (text(kind.r#type), text(kind.unit))).collect();
            assert_eq!(types.len(), 2 * provenances.len());
            for (provenance, rows) in &provenances {
                let name = format!("{}_space", provenance.name);
                let column = types.iter().position(|kind| *kind == (name.as_str(), "bytes")).unwrap();
                let sum = |column: usize| {
                    profile.samples.iter().map(|sample| sample.values[column] as u64).sum::<u64>()
                };
                assert_eq!(sum(column), rows.iter().map(|row| row.bytes).sum::<u64>(), "{name}");
                assert_eq!(types[column + 1].1, "count");
                assert_eq!(sum(column + 1), rows.iter().map(|row| row.allocs).sum::<u64>(), "{name}");
            }
        }
    }
}

#[test]
fn pprof_resolves_every_frame() {
    let mut recording = testing::cuda();
    for symbol in &mut recording.provenance.symbols {
        symbol.build_id = symbol.module.as_ref().map(|_| "0123456789abcdef".to_owned());
    }
    let profile = profile(&recording, InstantSpec::Peak);
    let text = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
    assert_eq!(text(0), "");
    let stack = |ids: &[u64]| {
        ids.iter()
            .map(|id| {
                let location = profile.locations.iter().find(|location| location.id == *id).unwrap();
                let function =
                    profile.functions.iter().find(|f| f.id == location.lines[0].function_id).unwrap();
                let mapping =
                    profile.mappings.iter().find(|mapping| mapping.id == location.mapping_id).unwrap();
                assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
                (text(function.name), text(mapping.filename), text(mapping.build_id))
            })
            .collect::<Vec<_>>()
    };
    let label = |sample: &libdd_profiling_protobuf::prost_impls::Sample, key: &str| {
        let found = sample.labels.iter().find(|label| text(label.key) == key);
        found.map(|label| if label.str == 0 { label.num.to_string() } else { text(label.str).to_owned() })
    };
    let device =
        profile.samples.iter().find(|sample| label(sample, "kind").as_deref() == Some("device")).unwrap();
    assert_eq!(stack(&device.location_ids)[0], ("cudaMalloc", "libcudart.so.13", "0123456789abcdef"));
    assert_eq!(stack(&device.location_ids)[2].0, "empty_cuda", "innermost first");
    assert_eq!(label(device, "function").as_deref(), Some("cuMemAlloc_v2"));
    assert!(label(device, "pid").is_some() && label(device, "cgroup").is_some());
    for sample in &profile.samples {
        assert!(!stack(&sample.location_ids).is_empty() && label(sample, "provenance").is_some());
        assert_eq!(sample.values.len(), profile.sample_types.len());
    }
    let pages =
        profile.samples.iter().find(|sample| label(sample, "source").as_deref() == Some("nvidia-sysmem"));
    assert_eq!(label(pages.unwrap(), "plane").as_deref(), Some("system"));
}

#[test]
fn a_stack_that_was_not_taken_has_a_name() {
    let mut recording = testing::native();
    for row in &mut recording.provenance.page_allocs {
        row.stack = None;
    }
    let profile = profile(&recording, InstantSpec::Peak);
    assert!(profile.string_table.iter().any(|text| text == "(no stack)"));
    assert!(profile.samples.iter().all(|sample| !sample.location_ids.is_empty()));
}

#[test]
fn names_are_inert_in_binary_formats() {
    for name in ["perfetto", "parquet", "pprof"] {
        let bytes = export(name, &hostile(), Options::default());
        let text = if name == "pprof" {
            profile(&hostile(), InstantSpec::Peak).string_table.join(" ")
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        };
        assert!(text.contains("=cmd()"), "{name}");
        assert!(!text.contains('\u{202e}') && !text.contains("</script>\n"), "{name}");
    }
}

#[test]
fn parquet_has_every_level_of_the_views() {
    for recording in all() {
        let file = export("parquet", &recording, Options::default());
        let reader = SerializedFileReader::new(prost::bytes::Bytes::from(file)).unwrap();
        let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let value =
            |key: &str| metadata.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        assert_eq!(value("spark-trace.schema_version").unwrap(), recording.schema_version.to_string());
        assert_eq!(value("host.kernel").unwrap(), recording.host.kernel);
        let expected = levels_of_views(&recording);
        let (mut rows, mut unknown) = (0, 0);
        for row in reader.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            let text = |index: usize| row.get_string(index).unwrap().clone();
            if ["process", "cuda"].contains(&text(1).as_str()) {
                continue;
            }
            let key = (text(1), text(2), text(3), row.get_double(0).unwrap().to_string());
            assert_eq!(expected[&key], row.get_long(4).ok(), "{key:?}");
            rows += 1;
            unknown += usize::from(row.get_long(4).is_err());
        }
        assert_eq!(rows - unknown, expected.values().flatten().count());
    }
    let empty = export("parquet", &testing::empty(), Options::default());
    assert_eq!(
        SerializedFileReader::new(prost::bytes::Bytes::from(empty)).unwrap().metadata().num_row_groups(),
        0
    );
}
