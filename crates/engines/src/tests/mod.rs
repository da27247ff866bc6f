//! Logs of every engine, with the figures that people read in them. Lines are shortened: the text that no pattern needs is
//! left out.

use crate::*;

mod llama_cpp;
mod malice;
mod sglang;
mod tensorrt_llm;
mod vllm;

/// A figure that a log has: of which subject, and how much.
type Stated = (Figure, &'static str, f64);

/// The unit that expected values are written down in.
#[derive(Clone, Copy)]
enum In {
    GiB,
    MiB,
}

/// Every figure of a log, and no other.
fn assert_figures(log: &EngineLog, unit: In, wanted: &[Stated]) {
    let bytes = match unit {
        In::GiB => f64::from(1 << 30),
        In::MiB => f64::from(1 << 20),
    };
    let scale = |figure: Figure| if figure.unit() == Unit::Bytes { bytes } else { 1.0 };
    let found: Vec<_> = log
        .figures
        .iter()
        .map(|found| {
            (found.figure, found.subject.as_deref().unwrap_or(""), found.value.real() / scale(found.figure))
        })
        .collect();
    for (figure, subject, value) in wanted {
        let same = found.iter().find(|(other, of, _)| (other, of) == (figure, subject));
        let (.., read) = same.unwrap_or_else(|| panic!("no {figure} of {subject:?} in {found:#?}"));
        // Bytes are whole, and a sum has two of them.
        assert!(
            (read - value).abs() <= 1.1 / scale(*figure).max(1e6),
            "{figure} of {subject:?}: {read}, not {value}"
        );
    }
    for (figure, subject, value) in &found {
        assert!(
            wanted.iter().any(|(other, of, _)| (other, of) == (figure, subject)),
            "{figure} of {subject:?} is {value}: nobody wrote that"
        );
    }
}

fn checks(log: &EngineLog) -> Vec<Check> {
    log.failures.iter().map(|failure| failure.check).collect()
}

#[test]
fn every_engine_has_one_row_and_its_variants_do_not_overlap() {
    use spark_trace_recording::word::Words;
    for engine in Engine::ALL {
        assert_eq!(ENGINES.iter().filter(|row| row.engine == *engine).count(), 1, "{engine}");
    }
    for row in ENGINES {
        assert!(!row.variants.is_empty(), "{}", row.engine);
        for (index, one) in row.variants.iter().enumerate() {
            for other in row.variants.iter().skip(index + 1) {
                assert!(!one.versions.overlaps(&other.versions), "{}: {one:?} and {other:?}", row.engine);
            }
        }
    }
}

#[test]
fn no_advice_is_to_drop_page_cache_where_it_counts_as_free() {
    for row in ENGINES {
        for variant in row.variants.iter().filter(|variant| variant.unified == Signal::MemAvailable) {
            let wrong = row.advice.iter().find(|advice| {
                advice.action == Action::DropPageCache
                    && advice.cause == Cause::PageCache
                    && advice.versions.overlaps(&variant.versions)
            });
            assert!(wrong.is_none(), "{}: {wrong:?}", row.engine);
        }
    }
}

#[test]
fn a_default_needs_the_version_where_it_changed() {
    let fraction = |engine, version: Option<&str>| {
        row(engine)?.parameter(ParameterName::Fraction)?.default_of(version.and_then(Version::parse))
    };
    assert_eq!(fraction(Engine::Vllm, Some("0.19.1")), Some(0.9));
    assert_eq!(fraction(Engine::Vllm, Some("0.25.1")), Some(0.92));
    assert_eq!(fraction(Engine::Vllm, None), None);
    assert_eq!(fraction(Engine::TensorRtLlm, None), Some(0.9));
    assert_eq!(fraction(Engine::Sglang, Some("0.5.23")), None, "it is computed");
}
