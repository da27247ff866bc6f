use super::*;
use crate::markdown;
use spark_trace_analysis::engine_evidence::EngineBy;
use spark_trace_analysis::findings::because::{Headline, Outside, Reason};
use spark_trace_analysis::findings::{Evidence, Finding, Findings, Side, Unit, Verdict};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::kv::{
    Advice, Agreement, Budget, CachedFile, Change, Failure, Figures, Identity, Note, OutsideUse, ProcessUse,
    Reading, Role, Step, Used, WhatIf, WhatIfKind,
};
use spark_trace_analysis::memory_queries::MemoryQueryRow;
use spark_trace_analysis::overview::overview;
use spark_trace_analysis::timeline::{Mark, MarkKind};
use spark_trace_engines::{Check, Engine};
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

/// What names of processes, files, images and log lines may be.
pub fn hostile_names() -> Vec<String> {
    let long = "x".repeat(300);
    [
        "<img src=x onerror=alert(1)>",
        "</script></title></style>\"' onmouseover=alert(1) <script>alert(1)</script>",
        "=cmd()",
        "\u{1b}]0;pwned\u{7}\u{1b}[2J",
        "exe\u{202e}gpj\n| evil |",
        &long,
    ]
    .map(str::to_owned)
    .into()
}

/// Two runs with verdicts and a budget, as the analyses would make them.
pub fn filled() -> Overview {
    with_names("/usr/lib/libtorch_cuda.so", "python3")
}

pub fn hostile_overview() -> Overview {
    let names = hostile_names().join(";");
    let mut overview = with_names(&names, &names);
    let hostile = crate::tests::hostile();
    let named = spark_trace_analysis::overview::overview(None, (&names, &hostile), InstantSpec::Peak);
    overview.b = named.b;
    overview.flames = named.flames;
    overview
}

fn with_names(path: &str, comm: &str) -> Overview {
    let (a, b) = (testing::native(), testing::container());
    let mut overview = overview(Some(("native.json", &a)), ("container.json", &b), InstantSpec::Peak);
    let evidence = |what: &str, value, unit| Evidence {
        what: what.to_owned(),
        value,
        unit,
        side: Side::B,
        place: format!("provenance.files of {path}"),
    };
    let finding = |verdict, explains_bytes: Option<i64>, reason: Reason| Finding {
        hypothesis: "image-cache",
        title: "Page cache of the image",
        claim: "The container is charged for files of its image that the native run found cached.",
        verdict,
        because: reason.into(),
        explains_bytes,
        share: explains_bytes.map(|bytes| bytes as f64 / (1018 * MIB) as f64),
        evidence: vec![
            evidence(&format!("page cache of {path}"), Some(980 << 20), Unit::DeltaBytes),
            evidence(&format!("files first touched by {comm}"), Some(3), Unit::Count),
        ],
        next: "run the container again with its image cached",
    };
    overview.findings = vec![Findings {
        plane: Scope::Cgroup,
        includes_others: false,
        untestable: None,
        at: InstantSpec::Peak,
        a_at_ns: Some(START + 5 * SECOND),
        b_at_ns: START + 5 * SECOND,
        delta_bytes: Some(1018 << 20),
        residual_bytes: Some(0),
        material_bytes: 8 << 20,
        headline: Headline {
            scope: Scope::Cgroup,
            at: InstantSpec::Peak,
            of_two: true,
            delta_bytes: Some(1018 << 20),
            threshold: 8 << 20,
            outside: Some(Outside::Start(format!("the page cache had {path} in one run only"))),
            causes: vec![],
            includes_others: false,
            counted_twice: None,
        },
        findings: vec![
            finding(Verdict::Supported, Some(980 << 20), Reason::OneDifference(format!("by {comm}"))),
            finding(Verdict::Untestable, None, Reason::ModuleNotTraced),
        ],
    }];
    let of_b = budget(path, comm, 10_000);
    let of_a = budget(path, comm, 11_018);
    overview.kv = Some(spark_trace_analysis::kv::Report {
        schema: spark_trace_analysis::kv::SCHEMA,
        schema_version: spark_trace_analysis::kv::SCHEMA_VERSION,
        kv_delta_bytes: Some(-(916 << 20)),
        b_with_state_of_a: of_a.figures.kv,
        a: Some(of_a),
        b: of_b,
        advice: vec![Advice {
            cause: "page-cache",
            action: Step::DropFile.as_str(),
            subject: Some(path.to_owned()),
            bytes: Some(980 * MIB),
            flag: Some(comm.to_owned()),
            command: Some("echo 1 > /proc/sys/vm/drop_caches".to_owned()),
            gains_bytes: Some(916 * MIB),
        }],
    });
    let mark = Mark { at_ns: START + 5 * SECOND, kind: MarkKind::Kv, what: comm.to_owned(), count: 1 };
    overview.b.marks.push(mark);
    overview
}

fn budget(path: &str, comm: &str, free: u64) -> Budget {
    let query = MemoryQueryRow {
        interface: "cuMemGetInfo_v2".to_owned(),
        comm: comm.to_owned(),
        pid: 4242,
        ..MemoryQueryRow::default()
    };
    let used = |source: &'static str, mib: u64, reclaimable| Used {
        source,
        title: source,
        bytes: mib * MIB,
        reclaimable,
        lowers: true,
    };
    let reading = Reading {
        at_ns: START + 5 * SECOND,
        since_start_ns: 5 * SECOND,
        free: free * MIB,
        total: Some(testing::MEMORY_TOTAL),
        device_free: Some(100 * MIB),
        found_by: "log",
        query,
        signal: Some("MemFree"),
    };
    let change = Change { source: "anon", title: "anon", before: 1, after: 2, change: 1 };
    let process = |role| ProcessUse {
        pid: Some(4242),
        comm: comm.to_owned(),
        role,
        before: Some(0),
        at: 256 * MIB,
        device: None,
        costs: Some(256 << 20),
    };
    Budget {
        engine: Identity {
            engine: Some(Engine::TensorRtLlm),
            title: Some("TensorRT-LLM"),
            version: None,
            found_by: Some(EngineBy::Log),
            candidates: vec![Engine::TensorRtLlm],
            signal: None,
            formula: None,
            version_open: false,
            row: None,
            variant: None,
        },
        baseline: Some(reading.clone()),
        reading,
        reserve: Some(600 * MIB),
        changes: vec![change],
        outside: vec![OutsideUse { pid: 77, comm: "tenant".into(), at_start: Some(3 << 30), at_end: None }],
        processes: vec![process(Role::Child), process(Role::Engine)],
        failure: Some(Failure {
            check: Check::FreeBelowRequested,
            line: comm.to_owned(),
            free: Some(1),
            needed: Some(2),
        }),
        containers: vec![],
        used: vec![used("anon", 1310, "by swap"), used("file-clean", 3038, "yes")],
        used_total: Some(testing::MEMORY_TOTAL - free * MIB),
        reclaimable: 3038 * MIB,
        available: Some((free + 3000) * MIB),
        figures: Figures {
            fraction: Some(0.9),
            fraction_from: Some("log"),
            allocated: Some(512 * MIB),
            kv: i64::try_from(free / 10 * 9 * MIB).ok(),
            logged_kv: i64::try_from(free / 10 * 9 * MIB).ok(),
            ..Figures::default()
        },
        what_if: vec![WhatIf {
            kind: WhatIfKind::Process,
            subject: Some(path.to_owned()),
            fraction: None,
            bytes: Some(882 * MIB),
            kv: 9 << 30,
            delta: 882 << 20,
        }],
        agreement: vec![Agreement { figure: "KV cache", logged: 9 << 30, traced: 9 << 30, percent: 0.0 }],
        files: vec![CachedFile {
            costs: None,
            path: path.to_owned(),
            opens_at: Some(path.to_owned()),
            bytes: 980 << 20,
            first_touch: Some(format!("{comm} (4242)")),
            charged_to: path.to_owned(),
        }],
        notes: vec![Note::NoLog],
    }
}

#[test]
fn markdown_has_the_answer_and_what_it_rests_on() {
    let text = markdown::render(&document(&filled())).replace('\\', "");
    let order = [
        "### Memory: B compared with A",
        "The target of B is charged 1018.0 MiB more than that of A, each at its peak; the page cache had",
        "The KV cache of B is 916.0 MiB smaller than that of A.",
        "SIMULATED",
        "Compared at each run's peak",
        "### Findings on memory charged to the target",
        "✔ supported",
        "### From A to B by source, cgroup plane",
        "| file-clean |",
        "### KV-cache budget",
        "what if",
        "### A: Reconciliation",
        "cost of tracing",
    ];
    let places: Vec<_> =
        order.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"))).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn hooks_that_were_not_chosen_are_counted_apart() {
    let line = |verdicts: &[&str]| {
        let hook = |verdict: &&str| Hook { verdict: (*verdict).into(), ..Hook::default() };
        chosen_hooks(&verdicts.iter().map(hook).collect::<Vec<_>>())
    };
    assert_eq!(line(&["ok", "ok"]), "hooks: 2 of 2 chosen hooks work");
    assert_eq!(
        line(&["ok", "off", "ok", "off", "off", "not-applicable"]),
        "hooks: 2 of 2 chosen hooks work; 3 off by profile, option or trigger; 1 without anything to see on this machine"
    );
    // A verdict that a later version writes is no work.
    assert_eq!(
        line(&["ok", "broken", "unsupported", "asleep", "off"]),
        "hooks: 1 of 4 chosen hooks work; 1 off by profile, option or trigger"
    );
}

#[test]
fn one_instant_has_no_growth_and_no_findings() {
    let mut recording = testing::native();
    recording.target.kind = spark_trace_recording::TargetKind::Snapshot.into();
    let overview = overview(None, ("now.json", &recording), InstantSpec::Peak);
    let mut sentences = Document::default();
    headline(&mut sentences, &overview);
    let shown = crate::terminal::render(&sentences, crate::Style::default());
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "The machine had 3.77 GiB in use: 2.01 GiB page cache, 1.27 GiB anonymous memory,",
            "  384.0 MiB kernel memory"
        ]
    );
    assert_eq!(lines[4], "Unexplained: 114.0 MiB (3.0 %). Nothing was traced: this is one instant.");
    assert!(overview.findings.is_empty());
    let planes = &overview.b.report.planes;
    assert!(planes.iter().flat_map(|plane| &plane.sources).all(|row| row.growth.is_none()));
    let text = markdown::render(&document(&overview));
    assert!(!text.contains("growth") && !text.contains("since the start"), "{text}");
}

#[test]
fn hostile_names_are_inert_in_markdown() {
    let text = markdown::render(&document(&hostile_overview()));
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
    let bare = |markup: char| text.match_indices(markup).any(|(at, _)| !text[..at].ends_with('\\'));
    assert!(!bare('<') && !bare('`') && !bare('['), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("| evil")));
}
