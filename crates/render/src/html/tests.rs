use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::report::tests::{filled, hostile_overview};
use spark_trace_analysis::findings::because::Reason;
use spark_trace_analysis::findings::{Evidence, Finding, Findings, Side, Unit, Verdict};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::overview::overview;
use spark_trace_recording::Recording;
use spark_trace_testing as testing;

fn page(a: Option<&Recording>, b: &Recording) -> String {
    let overview = overview(a.map(|a| ("a.json", a)), ("b.json", b), InstantSpec::Peak);
    String::from_utf8(render(&overview).unwrap()).unwrap()
}

fn two() -> String {
    page(Some(&testing::native()), &testing::cuda())
}

/// Tags of a page in their order, with what is in them; text between them is left out.
fn tags(html: &str) -> Vec<&str> {
    let (page, _) = html.split_once("<script").unwrap();
    page.split('<').skip(1).map(|tag| tag.split_once('>').unwrap().0).collect()
}

#[test]
fn the_answer_comes_first_and_what_it_rests_on_last() {
    let html = two();
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text} is not in the page"));
    let order = [
        "The target of B is charged",
        "The machine has",
        "A: SIMULATED",
        "SIMULATED: a program replaced",
        "The runs are",
        "id=\"difference\"",
        "id=\"timeline\"",
        "id=\"queries\"",
        "id=\"files\"",
        "id=\"cuda\"",
        "id=\"stacks\"",
        "id=\"reconciliation\"",
        "cost of tracing",
    ];
    let places: Vec<_> = order.iter().map(|text| at(text)).collect();
    assert!(places.is_sorted(), "{:?}", order.iter().zip(&places).collect::<Vec<_>>());
    let alone = page(None, &testing::gpus());
    assert!(alone.contains("id=\"sources\"") && !alone.contains("id=\"difference\""));
    assert!(alone.contains("GPU 1 plane over time"));
}

#[test]
fn nothing_is_fetched_and_only_our_script_runs() {
    let html = two();
    for outside in
        ["http:", "https:", "src=", "@import", "onload", "onclick", "javascript:", "<link", "<iframe"]
    {
        assert!(!html.contains(outside), "{outside}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    let digest = Sha256::digest(SCRIPT.as_bytes());
    assert_eq!(
        SCRIPT_HASH,
        format!("sha256-{}", base64(&digest)),
        "the script has changed: so must its hash"
    );
    assert!(html.contains(&format!("script-src &#39;{SCRIPT_HASH}&#39;")));
    assert!(html.contains("default-src &#39;none&#39;"));
    assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("</"));
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let block = |chunk: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let letter = |at: usize| {
            if at > chunk.len() { '=' } else { LETTERS[(bits >> (18 - 6 * at) & 63) as usize] as char }
        };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(block).collect()
}

#[test]
fn elements_are_closed_and_headings_are_in_order() {
    for html in [two(), page(None, &testing::gpus()), hostile()] {
        let body = html.split_once("</head>").unwrap().1;
        let mut open: Vec<&str> = vec!["html"];
        let mut level = 0;
        for tag in tags(body) {
            if tag.ends_with('/') {
                continue;
            }
            let name = tag.split([' ', '>']).next().unwrap();
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None => open.push(name),
            }
            if let Some(number) = name.strip_prefix('h').and_then(|number| number.parse::<u32>().ok()) {
                assert!(number <= level + 1, "h{number} follows h{level}");
                level = number;
            }
        }
        assert_eq!(open, ["html", "body"]);
    }
}

#[test]
fn charts_and_tables_can_be_heard() {
    let html = two();
    let pictures = tags(&html).into_iter().filter(|tag| tag.contains("role=\"img\"")).count();
    assert!(pictures > 6);
    assert_eq!(html.matches("<desc ").count(), pictures);
    let ids: Vec<_> =
        tags(&html).into_iter().filter_map(|tag| tag.split_once(" id=\"")?.1.split('"').next()).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(ids.len(), unique.len());
    for tag in tags(&html) {
        for (attribute, prefix) in [("aria-labelledby=\"", ""), ("href=\"#", "")] {
            let Some((_, value)) = tag.split_once(attribute) else { continue };
            for id in value.split('"').next().unwrap().split(' ') {
                assert!(ids.contains(&format!("{prefix}{id}").as_str()), "{id} is nowhere");
            }
        }
    }
    assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
    assert!(!html.contains("<th>"), "every heading of a table says of what");
    assert!(html.contains("class=\"skip\" href=\"#main\"") && html.contains("<html lang=\"en\">"));
}

fn hostile() -> String {
    String::from_utf8(render(&hostile_overview()).unwrap()).unwrap()
}

#[test]
fn hostile_names_are_text() {
    let html = hostile();
    for name in ["<img", "<script>alert", "onerror=alert(1)>", "\u{1b}", "\u{202e}"] {
        assert!(!html.contains(name), "{name:?}");
    }
    assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert_eq!(html.matches("<script").count(), 1);
    assert_eq!(html.matches("</script").count(), 1);
    // What the page has of tags and attributes does not depend on names.
    for tag in tags(&html) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '!'), "{tag}");
        let attributes = tag.split('"').step_by(2);
        assert!(!attributes.clone().any(|name| name.trim().starts_with("on")), "{tag}");
    }
}

#[test]
fn provenance_cannot_be_overlooked() {
    let mut recording = testing::container();
    recording.host.provenance = "measured".into();
    assert!(!page(None, &recording).contains("class=\"run loud\""));
    type Change = (&'static str, fn(&mut Recording));
    let changes: [Change; 3] = [
        ("EMULATED", |recording| recording.host.provenance = "emulated".into()),
        ("STAND-IN", |recording| {
            recording.host.nvidia = Some(spark_trace_recording::Nvidia {
                kernel_module: Some(spark_trace_recording::STAND_IN.into()),
                simulated: true,
                ..Default::default()
            });
        }),
        ("NOT MEASURED", |recording| recording.host.provenance = "imagined".into()),
    ];
    for (word, change) in changes {
        let mut recording = recording.clone();
        change(&mut recording);
        let html = page(None, &recording);
        let head = html.split_once("<main").unwrap().0;
        assert!(head.contains("class=\"run loud\"") && head.contains(word), "{word}");
    }
}

#[test]
fn verdicts_and_budget_have_their_sections() {
    let html = String::from_utf8(render(&filled()).unwrap()).unwrap();
    for text in [
        "id=\"findings\"",
        "✔ supported",
        "– untestable",
        "+980.0 MiB",
        "id=\"kv\"",
        "★",
        "drop_caches",
        "what if",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let headline =
        "The target of B is charged 1018.0 MiB more than that of A, each at its peak; the page cache had";
    assert!(html.find(headline).unwrap() < html.find("id=\"difference\"").unwrap());
}

/// vLLM's own log: "Model loading took 11.05 GiB memory".
#[test]
fn page_and_markdown_have_the_stages_of_the_engine_and_the_parts_of_its_memory() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/2026-11-30-h200-engines");
    let file = format!("{root}/vllm-graphs-native.json.zst");
    let recording = spark_trace_recording::read(std::path::Path::new(&file)).unwrap();
    let overview = overview(None, ("run.json", &recording), InstantSpec::Peak);
    let markdown = crate::markdown::render(&report::document(&overview)).replace('\\', "");
    let html = String::from_utf8(render(&overview).unwrap()).unwrap();
    for text in [&markdown, &html] {
        let order = [
            "Engine: vLLM 0.25.1",
            "weights",
            "KV allocation",
            "serving",
            "Device memory by use",
            "11.05 GiB",
        ];
        let mut rest = &text[text.find("Engine: vLLM").unwrap()..];
        for part in order {
            let place = rest.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
            rest = &rest[place..];
        }
    }
    assert!(html.contains("<section id=\"engine\""));
    let without = page(None, &testing::native());
    assert!(!without.contains("<section id=\"engine\""));
}

#[test]
fn a_long_list_says_what_is_left_out() {
    let mut recording = testing::container();
    for inode in 0..200 {
        testing::file(&mut recording, 5000 + inode, &format!("/data/{inode}"), 1, 20);
    }
    let html = page(None, &recording);
    assert!(html.contains("178 more rows not shown: 178.0 MiB"), "{html}");
}

#[test]
fn a_finding_has_no_numbers_it_was_not_given() {
    let finding = Finding {
        hypothesis: "x",
        title: "t",
        claim: "c",
        verdict: Verdict::Inconclusive,
        because: Reason::PinsNotCounted.into(),
        explains_bytes: None,
        share: None,
        evidence: vec![Evidence {
            what: "w".into(),
            value: None,
            unit: Unit::Bytes,
            side: Side::B,
            place: "p".into(),
        }],
        next: "n",
    };
    let mut overview = overview(None, ("b.json", &testing::native()), InstantSpec::Peak);
    let first = overview.findings.remove(0);
    overview.findings = vec![Findings { findings: vec![finding], ..first }];
    let html = String::from_utf8(render(&overview).unwrap()).unwrap();
    assert!(html.contains("w: not known (B, p)") && html.contains("? inconclusive"), "{html}");
}

/// For eyes and for a browser's console: `SPARK_TRACE_PAGES=DIR cargo test pages_to_look_at -- --ignored`.
#[test]
#[ignore = "writes pages for people to look at"]
fn pages_to_look_at() {
    let directory = std::env::var_os("SPARK_TRACE_PAGES").expect("say in SPARK_TRACE_PAGES where to");
    let directory = std::path::Path::new(&directory);
    let pages = [
        ("filled", render(&filled()).unwrap()),
        ("hostile", render(&hostile_overview()).unwrap()),
        ("gpus", page(None, &testing::gpus()).into_bytes()),
        ("empty", page(None, &testing::empty()).into_bytes()),
    ];
    for (name, page) in pages {
        std::fs::write(directory.join(name).with_extension("html"), page).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever still reads as a recording can be reported on.
    #[test]
    fn damaged_recordings_do_not_panic(
        damages in prop::collection::vec((any::<prop::sample::Index>(), "[0-9]|99999999|null|-|,|[a-z]"), 1..6),
    ) {
        let mut text = serde_json::to_string(&testing::cuda()).unwrap();
        for (place, damage) in damages {
            let digits: Vec<_> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = *place.get(&digits);
            text.replace_range(at..=at, &damage);
        }
        if let Ok(recording) = spark_trace_recording::read::parse(std::path::Path::new("damaged"), text.as_bytes()) {
            let overview = overview(Some(("a", &testing::native())), ("b", &recording), InstantSpec::Peak);
            prop_assert!(render(&overview).is_ok());
            let timelines = spark_trace_analysis::timeline::all(&recording, 69);
            crate::plot::render(&timelines, &[], crate::Style::default());
        }
    }
}
