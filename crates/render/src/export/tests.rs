//! Every export is read by a reader of other hands, and has the numbers of the views.

use std::collections::BTreeMap;

use super::*;
use spark_trace_analysis::attribution::level_of;
use spark_trace_analysis::levels::{self, COUNTER};
use spark_trace_analysis::timeline::seconds_between;
use spark_trace_testing as testing;
use spark_trace_testing::SECOND;

mod binary;

/// What anyone on the machine can call a process, a cgroup or a function.
const HOSTILE: &str = "=cmd()\"\\</title><script>alert(1)</script>\n;# EOF\u{202e},{}";

fn export(name: &str, recording: &Recording, options: Options) -> Vec<u8> {
    let export = EXPORTS.iter().find(|export| export.name == name).unwrap();
    let mut bytes = Vec::new();
    (export.export)(recording, options).unwrap().write(&mut bytes).unwrap();
    bytes
}

fn text(name: &str, recording: &Recording, options: Options) -> String {
    String::from_utf8(export(name, recording, options)).unwrap()
}

fn all() -> [Recording; 4] {
    [testing::native(), testing::container(), testing::gpus(), testing::cuda()]
}

fn hostile() -> Recording {
    let mut recording = testing::cuda();
    recording.target.cgroups[0].path = HOSTILE.into();
    recording.samples.cgroups[0].path = HOSTILE.into();
    recording.host.kernel = HOSTILE.into();
    for process in &mut recording.provenance.processes {
        process.comm = HOSTILE.into();
        process.argv = vec![HOSTILE.into()];
    }
    for symbol in &mut recording.provenance.symbols {
        symbol.name = Some(HOSTILE.into());
        symbol.module = Some(HOSTILE.into());
    }
    recording
}

/// Levels by plane, object, source and time, as the views have them.
fn levels_of_views(recording: &Recording) -> BTreeMap<(String, String, String, String), Option<i64>> {
    let mut expected = BTreeMap::new();
    for object in levels::objects(recording) {
        for at_ns in object.view.times() {
            let balance = object.view.at(at_ns);
            let seconds = seconds_between(recording.target.started_ns, at_ns).to_string();
            let sources = object.view.plane.sources().map(|source| source.slug);
            let levels = sources.map(|slug| (slug, level_of(&balance, slug)));
            for (source, bytes) in levels.chain([(COUNTER, levels::counter(&balance))]) {
                let plane = object.view.scope.as_str().to_owned();
                expected.insert((plane, object.name.clone(), source.to_owned(), seconds.clone()), bytes);
            }
        }
    }
    expected
}

#[test]
fn names_are_there_once() {
    let mut names: Vec<_> = EXPORTS.iter().map(|export| export.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), EXPORTS.len());
}

#[test]
fn the_same_recording_gives_the_same_bytes() {
    for format in EXPORTS {
        let of = || export(format.name, &testing::cuda(), Options::default());
        assert!(of() == of(), "{}", format.name);
    }
}

#[test]
fn csv_has_every_level_of_the_views() {
    for recording in all() {
        let table = text("csv", &recording, Options::default());
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        assert_eq!(reader.headers().unwrap(), vec!["time_seconds", "plane", "object", "source", "bytes"]);
        let expected = levels_of_views(&recording);
        let mut seen = 0;
        for row in reader.records() {
            let row = row.unwrap();
            if ["process", "cuda"].contains(&&row[1]) {
                continue;
            }
            let key = (row[1].to_owned(), row[2].to_owned(), row[3].to_owned(), row[0].to_owned());
            assert_eq!(expected[&key], row[4].parse().ok(), "{key:?}");
            seen += 1;
        }
        let known = expected.values().flatten().count();
        assert!(seen >= known, "{seen} rows for {known} levels");
    }
}

#[test]
fn a_spreadsheet_takes_names_as_text() {
    let table = text("csv", &hostile(), Options::default());
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let objects: Vec<_> = reader.records().map(|row| row.unwrap()[2].to_owned()).collect();
    assert!(objects.iter().any(|object| object.starts_with("'=cmd()")));
    assert!(objects.iter().all(|object| !object.starts_with('=') && !object.contains(['\n', '\u{202e}'])));
}

#[test]
fn openmetrics_has_the_levels_of_the_instant() {
    use openmetrics_parser::openmetrics::parse_openmetrics;
    for recording in all() {
        for at in [InstantSpec::Peak, InstantSpec::End, InstantSpec::SinceStart(5 * SECOND)] {
            let text = text("openmetrics", &recording, Options { at, ..Options::default() });
            let parsed = parse_openmetrics(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            // promtool takes no history without.
            let mut samples = parsed.families.values().flat_map(|family| family.iter_samples());
            assert!(samples.all(|sample| sample.timestamp.is_some()));
            let family = &parsed.families["spark_trace_memory_bytes"];
            assert_eq!(family.unit, "bytes");
            let mut samples = BTreeMap::new();
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap();
                let label = |name: &str| labels.get_label_value(name).unwrap().to_owned();
                let value = match &sample.value {
                    openmetrics_parser::OpenMetricsValue::Gauge(number) => number.as_f64(),
                    other => panic!("{other:?}"),
                };
                let key = (label("plane"), label("object"), label("source"));
                assert!(samples.insert(key, (value, sample.timestamp.unwrap())).is_none());
            }
            let mut known = 0;
            for object in levels::objects(&recording) {
                let balance = object.view.choose(at);
                for source in object.view.plane.sources() {
                    let key =
                        (object.view.scope.as_str().to_owned(), object.name.clone(), source.slug.to_owned());
                    let found = samples.get(&key);
                    let level = level_of(&balance, source.slug).map(|bytes| bytes as f64);
                    assert_eq!(found.map(|sample| sample.0), level, "{key:?}");
                    if let Some((_, time)) = found {
                        assert!((time - balance.at_ns as f64 / 1e9).abs() < 1e-6);
                        known += 1;
                    }
                }
            }
            assert_eq!(samples.len(), known);
        }
    }
}

#[test]
fn openmetrics_escapes_names() {
    use openmetrics_parser::openmetrics::parse_openmetrics;
    let text = text("openmetrics", &hostile(), Options::default());
    let parsed = parse_openmetrics(&text).unwrap();
    assert_eq!(text.matches("# EOF\n").count(), 1);
    let process = parsed.families["spark_trace_process_bytes"].iter_samples().next().unwrap();
    let comm = process.get_labelset().unwrap().get_label_value("comm").unwrap().to_owned();
    assert!(comm.starts_with("=cmd()"), "{comm}");
    assert!(text.ends_with("# EOF\n") && !text.contains('\u{202e}'));
}

#[test]
fn folded_has_every_stack_with_its_bytes() {
    let recording = testing::cuda();
    let text = text("folded", &recording, Options::default());
    let report = spark_trace_analysis::attribution::report(&recording, InstantSpec::Peak);
    let sum = |kind: &str| {
        let rows = text.lines().filter(|line| line.starts_with(&format!("{kind};")));
        rows.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!(sum("pages"), report.stacks.iter().map(|row| row.bytes).sum::<u64>());
    let cuda = report.cuda.as_ref().unwrap();
    assert_eq!(sum("cuda"), cuda.stacks.iter().filter_map(|row| row.live).sum::<u64>());
    assert!(
        text.contains("cuda;device;empty_cuda [libtorch_cuda.so];alloc_block [libc10_cuda.so];"),
        "{text}"
    );
    let one = Options { stacks: Some(&KINDS[2]), ..Options::default() };
    assert!(self::text("folded", &recording, one).lines().all(|line| line.starts_with("cuda;")));
}

#[test]
fn hostile_frames_stay_in_one_line() {
    let text = text("folded", &hostile(), Options::default());
    for line in text.lines() {
        assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().is_ok(), "{line}");
        assert!(!line.contains('\u{202e}'));
    }
}

fn xml(svg: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(svg, options).unwrap()
}

#[test]
fn a_flame_graph_is_xml_with_every_frame() {
    let recording = testing::cuda();
    for kind in KINDS {
        let wanted = Options { stacks: Some(kind), ..Options::default() };
        let flame = folded::flames(&recording, wanted);
        let Ok(flames) = flame else { continue };
        let svg = text("flamegraph", &recording, wanted);
        let document = xml(&svg);
        let titles: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("title"))
            .filter_map(|node| node.text())
            .collect();
        let total: u64 = flames[0].rows.iter().map(|row| row.b_bytes).sum();
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let root = titles.iter().find(|title| title.starts_with("all (")).unwrap();
        assert_eq!(digits(root.split(" bytes").next().unwrap()), total.to_string());
        for row in &flames[0].rows {
            let tip = row.frames.last().unwrap();
            assert!(titles.iter().any(|title| title.starts_with(tip.as_str())), "{tip}");
        }
    }
    let svg = text("flamegraph", &hostile(), Options::default());
    let document = xml(&svg);
    let scripts = document.descendants().filter(|node| node.has_tag_name("script")).count();
    assert_eq!(scripts, 1, "the library's own");
}

#[test]
fn without_stacks_there_is_an_error_that_says_so() {
    for name in ["folded", "flamegraph", "pprof"] {
        let export = EXPORTS.iter().find(|export| export.name == name).unwrap();
        let error = (export.export)(&testing::empty(), Options::default()).unwrap_err();
        assert!(error.to_string().contains("pages, charges, cuda"), "{error}");
    }
}
