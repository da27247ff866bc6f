use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::show::Shown;
use super::*;
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::sort::Arrange;
use spark_trace_recording::ledger::Plane;
use spark_trace_recording::{Loss, Recording};
use spark_trace_testing as testing;

/// Names that try to be commands, markup, formulas or other rows.
const HOSTILE: &str = "=\x1b[2J\x1b]0;pwned\x07\n| <img src=x onerror=alert(1)> | `rm`\r\u{202e}";

/// Every text that something outside chooses, chosen badly.
pub(super) fn hostile() -> Recording {
    let mut recording = testing::cuda();
    recording.target.container = testing::container().target.container;
    let gpus = testing::gpus();
    (recording.host.gpus, recording.host.nvidia) = (gpus.host.gpus, gpus.host.nvidia);
    recording.samples.devices = gpus.samples.devices;
    let name = || HOSTILE.to_owned();
    recording.target.argv = vec![name()];
    recording.host.gpus[0].name = Some(name());
    recording.samples.devices[1].series.absent[0].reason = name();
    recording.health.sources = vec![spark_trace_recording::SourceVerdict {
        name: name(),
        verdict: name().as_str().into(),
        reason: Some(name()),
    }];
    recording.target.kind = name().as_str().into();
    recording.target.cgroups[0].path = name();
    recording.target.container.as_mut().unwrap().name = Some(name());
    recording.host.kernel = name();
    recording.health.lost_total = 1;
    recording.health.warnings = vec![name()];
    recording.health.losses = vec![Loss { what: name(), count: 1 }];
    testing::hook(&mut recording, "nvidia-alloc").reason = Some(name());
    for file in &mut recording.provenance.files {
        file.path = Some(name());
        file.first_touch.get_or_insert_default().comm = name();
    }
    for process in &mut recording.provenance.processes {
        (process.comm, process.argv) = (name(), vec![name()]);
    }
    for region in &mut recording.provenance.regions {
        region.name = name();
    }
    for symbol in &mut recording.provenance.symbols {
        (symbol.name, symbol.module) = (Some(name()), Some(name()));
    }
    for cgroup in &mut recording.provenance.cgroups {
        cgroup.path = name();
    }
    for library in &mut recording.health.libraries {
        (library.library, library.path, library.missing) = (name(), name(), vec![name()]);
        (library.verdict, library.reason) = ("broken".into(), Some(name()));
    }
    for allocs in &mut recording.provenance.cuda_allocs {
        (allocs.kind, allocs.function) = (name(), name());
    }
    for total in &mut recording.provenance.cuda_totals {
        total.kind = name();
    }
    for failure in &mut recording.provenance.cuda_failures {
        (failure.function, failure.result_name) = (name(), Some(name()));
    }
    for event in &mut recording.provenance.cuda_events {
        (event.event, event.function) = (name(), name());
    }
    for query in &mut recording.provenance.queries {
        (query.interface, query.directory, query.text) = (name(), Some(name()), Some(name()));
    }
    recording
}

/// Both reports in every format.
fn rendered(a: &Recording, b: &Recording) -> Vec<(&'static str, String)> {
    let show = attribution::report(b, InstantSpec::Peak);
    let diff = comparison::report(a, b, None, InstantSpec::Peak).unwrap();
    let text = |bytes: Rendered| String::from_utf8(bytes.unwrap()).unwrap();
    let formats = FORMATS.iter();
    formats
        .flat_map(|format| {
            let style = Style::default();
            [
                (format.name, text((format.show)(&show, &Shown::ALL, style))),
                (format.name, text((format.diff)(&diff, diff::Shown { all: true }, style))),
            ]
        })
        .collect()
}

#[test]
fn hostile_names_are_inert_in_every_format() {
    for (format, text) in rendered(&testing::native(), &hostile()) {
        let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        match format {
            "json" => {
                assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
            _ => assert!(!text.contains(active), "{format}: {text}"),
        }
        assert!(
            !text.lines().any(|line| line.starts_with("| <img")),
            "{format}: a name made a line of its own"
        );
        if format == "markdown" {
            assert!(!text.contains(" <img") && !text.contains(" `rm"));
        }
    }
}

#[test]
fn tables_fit_into_80_columns() {
    use unicode_width::UnicodeWidthStr;
    let pairs = [
        (testing::native(), testing::gpus()),
        (testing::native(), testing::container()),
        (testing::container(), testing::cuda()),
    ];
    for (format, text) in pairs.iter().flat_map(|(a, b)| rendered(a, b)) {
        if format == "table" {
            let wide: Vec<_> = text.lines().filter(|line| line.width() > 80).collect();
            assert!(wide.is_empty(), "{wide:#?}");
        }
    }
}

#[test]
fn losses_are_shouted_and_unattributed_is_always_there() {
    let mut recording = testing::container();
    recording.health.lost_total = 12;
    recording.health.losses = vec![Loss { what: "files".into(), count: 12 }];
    let mut warnings = Vec::new();
    for (format, text) in rendered(&recording, &recording) {
        assert!(text.lines().any(|line| line.contains("unattributed")), "{format}");
        if format == "markdown" {
            warnings.extend(text.lines().filter(|line| line.contains("WARNING")).map(str::to_owned));
        }
    }
    assert_eq!(
        warnings,
        [
            "> **WARNING** 12 events or entries were lost: lists of holders and stacks are incomplete, levels are complete; record again on a quieter machine, or with a lighter profile",
            "> **WARNING** lost in files: 12",
            "> **WARNING** not comparable: A lost 12 events or entries",
            "> **WARNING** not comparable: B lost 12 events or entries",
        ]
    );
    let empty = attribution::report(&testing::empty(), InstantSpec::Peak);
    assert!((FORMATS[0].show)(&empty, &Shown::ALL, Style::default()).is_ok());
}

const SOURCE_ROW: [&str; 14] = [
    "bytes",
    "bytes_at_cgroup_peak",
    "bytes_at_end",
    "bytes_at_peak",
    "bytes_at_start",
    "bytes_at_system_peak",
    "charged",
    "growth",
    "observed",
    "observed_charged",
    "observed_uncharged",
    "reclaimable",
    "source",
    "title",
];

/// Names of an object's fields, sorted.
fn names(value: &serde_json::Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn reports_have_their_schema_and_shape() {
    let json: Vec<serde_json::Value> = rendered(&testing::native(), &testing::container())
        .into_iter()
        .filter(|(format, _)| *format == "json")
        .map(|(_, text)| serde_json::from_str(&text).unwrap())
        .collect();
    let [show, diff] = &json[..] else { panic!("one of each") };
    assert_eq!((&show["schema"], &show["schema_version"]), (&"spark-trace/show".into(), &1.into()));
    for plane in ["system", "cgroup"] {
        let plane = &show["planes"][plane];
        assert_eq!(names(&plane["level"]), ["attributed", "expected", "residual", "residual_percent"]);
        // The counter is its sources and what they leave over, to the byte.
        let int = |value: &serde_json::Value| value.as_i64().unwrap();
        let rows = plane["sources"].as_array().unwrap();
        // The plane's own fields are those of its growth.
        for (balance, column) in [(&plane["level"], "bytes"), (plane, "growth")] {
            let of_sources = rows.iter().filter(|row| row["source"] != "unattributed");
            let sum: i64 = of_sources.filter_map(|row| row[column].as_i64()).sum();
            assert_eq!(sum, int(&balance["attributed"]), "{column}");
            assert_eq!(int(&balance["expected"]) - sum, int(&balance["residual"]), "{column}");
        }
        for row in rows {
            assert_eq!(names(row), SOURCE_ROW);
        }
    }
    let anon = &show["planes"]["cgroup"]["sources"][0];
    assert_eq!((&anon["source"], &anon["bytes_at_peak"]), (&"anon".into(), &(810 << 20).into()));
    for (list, first) in [
        ("stacks", "Kernel and driver pages"),
        ("files", "Page cache"),
        ("processes", "Processes"),
        ("mappings", "Large mappings"),
    ] {
        assert!(show[list].as_array().is_some_and(|rows| !rows.is_empty()), "{first}: {}", show[list]);
    }
    assert_eq!((&diff["schema"], &diff["plane"]), (&"spark-trace/diff".into(), &"cgroup".into()));
    assert_eq!(diff["comparable"]["ok"], true);
    let rows = diff["sources"].as_array().unwrap();
    let files = rows.iter().find(|row| row["source"] == "file-clean").unwrap();
    assert_eq!(files["delta_bytes"], 980 << 20);
}

#[test]
fn what_the_driver_did_is_in_every_report() {
    let of = |name: &str, (show, diff): (&attribution::Report, &comparison::Report)| {
        let format = FORMATS.iter().find(|format| format.name == name).unwrap();
        let text = |bytes: Rendered| String::from_utf8(bytes.unwrap()).unwrap();
        (
            text((format.show)(show, &Shown::ALL, Style::default())),
            text((format.diff)(diff, diff::Shown::default(), Style::default())),
        )
    };
    let recording = testing::cuda();
    let show = attribution::report(&recording, InstantSpec::Peak);
    let diff = comparison::report(&testing::container(), &recording, None, InstantSpec::Peak).unwrap();
    for name in ["table", "markdown"] {
        let (show, diff) = of(name, (&show, &diff));
        let (show, diff) = (show.replace('\\', ""), diff.replace('\\', ""));
        for text in
            ["SIMULATED", "shmem-pinned", "OUT_OF_MEMORY", "module-load", "12.0 ms", "run-3/memory.max"]
        {
            assert!(show.contains(text), "{name}: {text}\n{show}");
        }
        assert!(show.contains("free 10.93 GiB to 10.94 GiB"), "{show}");
        assert!(diff.contains("Memory queries of each run"), "{diff}");
    }
    let (show, diff) = of("json", (&show, &diff));
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (show, diff) = (json(&show), json(&diff));
    assert_eq!(show["cuda"]["totals"][0]["live"], 512 << 20);
    assert_eq!(show["cuda"]["stacks"][0]["through"], "runtime");
    assert_eq!(show["cuda"]["libraries"][1]["late_ns"], 12_000_000);
    assert_eq!(show["cuda"]["host"][0]["charged"], "no");
    assert_eq!(show["queries"]["rows"][0]["nested"][0]["interface"], "/proc/meminfo");
    assert_eq!(show["queries"]["rows"].as_array().unwrap().len(), 8, "none is folded");
    assert_eq!(show["queries"]["summaries"][0]["count"], 3);
    assert_eq!(diff["cuda"]["kinds"][0]["b_bytes"], 512 << 20);
    assert_eq!(diff["cuda"]["queries"][0]["b"]["last"], 11190_u64 << 20);
    let nothing = attribution::report(&testing::native(), InstantSpec::Peak);
    assert!(nothing.cuda.is_none() && nothing.queries.is_none());
    let same = comparison::report(&testing::native(), &testing::native(), None, InstantSpec::Peak).unwrap();
    let (show, _) = of("table", (&nothing, &same));
    assert!(!show.lines().any(|line| line.starts_with("CUDA")), "{show}");
}

#[test]
fn csv_has_a_row_per_plane_and_source() {
    let mut report = attribution::report(&testing::container(), InstantSpec::Peak);
    report.keep(0);
    let format = FORMATS.iter().find(|format| format.name == "csv").unwrap();
    let text = String::from_utf8((format.show)(&report, &Shown::ALL, Style::default()).unwrap()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * Plane::System.sources().count());
    assert!(lines[0].starts_with("plane,source,bytes_at_start,bytes_at_peak,bytes_at_end,"));
    assert!(lines.iter().any(|line| line.starts_with("cgroup,anon,0,849346560,20971520,")));
    // Unknown is empty, not zero.
    assert!(lines.iter().any(|line| line.starts_with("system,nvidia-sysmem,,,,,,,,67108864,0,67108864,no,")));
}

#[test]
fn what_was_read_at_another_time_says_when() {
    let title = |recording: &Recording| {
        let report = attribution::report(recording, InstantSpec::Peak);
        let table = FORMATS.iter().find(|format| format.name == "table").unwrap();
        let wide = Style { width: Some(120), ..Style::default() };
        let text = String::from_utf8((table.show)(&report, &Shown::ALL, wide).unwrap()).unwrap();
        text.lines().find(|line| line.starts_with("Page cache by file")).unwrap().to_owned()
    };
    let mut recording = testing::container();
    assert_eq!(title(&recording), "Page cache by file, added since the trace began, in use after 5.0 s");
    // The last reading before that is the peak as well.
    recording.provenance.instants[1].at_ns += testing::SECOND;
    let read_later =
        "Page cache by file, added since the trace began, in use after 5.0 s, as read after 6.0 s";
    assert_eq!(title(&recording), read_later);
    let report = attribution::report(&recording, InstantSpec::Peak);
    assert_eq!(report.details_instant.as_ref(), recording.provenance.instants.get(1));
    let before = spark_trace_recording::Instant { at_ns: testing::START - 1, why: "system-peak".into() };
    assert_eq!(show::read_at(&report, Some(&before)), "5.0 s, as read before it began");
}

#[test]
fn gpus_are_shown_like_the_other_planes() {
    let report = attribution::report(&testing::gpus(), InstantSpec::Peak);
    let text = |name: &str| {
        let format = FORMATS.iter().find(|format| format.name == name).unwrap();
        String::from_utf8((format.show)(&report, &Shown::ALL, Style::default()).unwrap()).unwrap()
    };
    let table = text("table").split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in [
        "GPU 0 Simulated GPU 0 (simulated): device memory in use; peak after 5.0 s",
        "gpu-context 0 29.30 GiB",
        "4242 python3 0 29.30 GiB 0",
        "99 not the target's 500.0 MiB",
        "GPU 1 Simulated GPU 1 (simulated): device memory of processes; peak after 5.0 s",
        "this device has no memory of its own: its allocations are system memory, on the system plane",
        "utilization 0/0/97 %; power 75/75/640 W",
        "clocks were limited by: gpu-idle, sw-power-cap, unknown (0x8000)",
        "NVML 3 readings in 9.0 ms",
    ] {
        assert!(table.contains(wanted), "{wanted:?} is not in {}", text("table"));
    }
    let json: serde_json::Value = serde_json::from_str(&text("json")).unwrap();
    let devices = json["planes"]["devices"].as_array().unwrap();
    assert_eq!(devices[0]["device"]["readings"][1]["max"], 640_000);
    let context = devices[0]["sources"].as_array().unwrap().iter().find(|row| row["source"] == "gpu-context");
    assert_eq!(context.unwrap()["bytes"], 30_000_u64 << 20);
    assert!(devices[1]["expected"].is_null() && devices[1]["device"]["note"].is_string());
    assert!(text("csv").lines().any(|line| line.starts_with("device:1,gpu-context,0,734003200,0,")));
}

#[test]
fn the_gpus_of_two_runs_can_be_compared() {
    use spark_trace_analysis::view::Scope;
    let (mut a, mut b) = (testing::gpus(), testing::gpus());
    // Of one device alone: what one of several does not know, their sum does not.
    a.samples.devices.truncate(1);
    b.samples.devices.truncate(1);
    let columns = &mut b.samples.devices[0].series.columns;
    columns.get_mut("process.4242.used").unwrap().map(|bytes| bytes + (1 << 30));
    columns.get_mut("memory.free").unwrap().map(|bytes| bytes - (1 << 30));
    let report = comparison::report(&a, &b, Some(Scope::Device), InstantSpec::Peak).unwrap();
    let context = report.sources.iter().find(|row| row.source == "gpu-context").unwrap();
    assert_eq!((context.delta_bytes, report.total_delta_bytes), (Some(1 << 30), Some(1 << 30)));
    assert!(report.files.is_empty() && report.stacks.is_empty() && report.regions.is_empty());
    let none = comparison::report(&testing::native(), &b, Some(Scope::Device), InstantSpec::Peak);
    assert!(none.unwrap_err().to_string().contains("no readings of the device plane"));
}

/// Lists and commands are whole, and a word that is longer than the line is not broken.
#[test]
fn what_real_runs_have_fits_into_80_columns() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/2026-11-30-h200-engines");
    let files = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "zst")) {
        let recording = spark_trace_recording::read(&file).unwrap();
        let derived = Derived::from(&recording);
        let budget = budget::report(None, derived.for_kv(), budget::Options::default()).unwrap();
        let report = attribution::report(&derived, InstantSpec::Peak);
        let style = Style { width: Some(80), ..Style::default() };
        let texts = [
            terminal::render(&kv::document(&budget), style),
            terminal::render(&show::document(&report, &Shown::ALL), style),
        ];
        for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with("    ")) {
            let words = line.split_whitespace().count();
            assert!(words == 1 || line.width() <= 80, "{}: {line}", file.display());
        }
    }
}

proptest! {
    /// Whatever still reads as a recording can be analysed and rendered.
    #[test]
    fn damaged_recordings_do_not_panic(
        damages in prop::collection::vec((any::<prop::sample::Index>(), "[0-9]|99999999|null|-|,|[a-z]"), 1..6),
        uses_cuda in any::<bool>(),
    ) {
        let whole = if uses_cuda { testing::cuda() } else { testing::container() };
        let mut text = serde_json::to_string(&whole).unwrap();
        for (place, damage) in damages {
            // Numbers and names are where damage leaves JSON whole most often.
            let digits: Vec<_> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = *place.get(&digits);
            text.replace_range(at..=at, &damage);
        }
        if let Ok(recording) = spark_trace_recording::read::parse(std::path::Path::new("damaged"), text.as_bytes()) {
            for at in [InstantSpec::Peak, InstantSpec::End, InstantSpec::SinceStart(u64::MAX), InstantSpec::Time(0)] {
                let report = attribution::report(&recording, at);
                for format in FORMATS {
                    prop_assert!((format.show)(&report, &Shown::ALL, Style::default()).is_ok());
                }
            }
            if comparison::report(&testing::native(), &recording, None, InstantSpec::Peak).is_ok() {
                rendered(&testing::native(), &recording);
            }
        }
    }
}
