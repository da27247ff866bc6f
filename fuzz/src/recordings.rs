//! Recordings and journals, as strangers may send them.

use std::io::Write;
use std::path::Path;

use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::moment::{Moment, Moments};
use spark_trace_analysis::{attribution, diff, overview};
use spark_trace_recording::{Recording, bounds::ZSTD_MAGIC, journal as journals, read, redact, retention};
use spark_trace_render as render;
use spark_trace_render::export::{EXPORTS, Options};
use spark_trace_render::show::{Parts, Shown};
use spark_trace_render::{FORMATS, Style, html, plot};

use crate::edits;

pub fn recording(data: &[u8]) {
    if let Ok(recording) = read::parse(Path::new("-"), data) {
        look(&recording);
    }
}

/// Bytes alone seldom make a recording: here some values of a whole one become others.
pub fn edited(data: &[u8]) {
    let text = edits::edited(data);
    if let Ok(recording) = read::parse(Path::new("-"), text.as_bytes()) {
        look(&recording);
    }
}

pub fn journal(data: &[u8]) {
    if let Ok(recording) = journals::recover(data) {
        // What `recover` writes, others must be able to read.
        let text = serde_json::to_vec(&recording).unwrap_or_default();
        let again = read::parse(Path::new("-"), &text);
        assert!(
            again.is_ok(),
            "recovered, and then refused: {}",
            again.err().map(|e| e.to_string()).unwrap_or_default()
        );
        look(&recording);
    }
}

/// The same lines packed, cut at a place that the first byte chooses. What is recovered is that of the lines up to there, or of
/// some of them.
pub fn packed(data: &[u8]) {
    let Some((cut, lines)) = data.split_first() else { return };
    if lines.starts_with(&ZSTD_MAGIC) {
        // Packed once already.
        return;
    }
    let mut bytes = Vec::new();
    let Ok(mut packer) = journals::Packer::new(&mut bytes) else { return };
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        assert!(packer.write_all(line).and_then(|()| packer.flush()).is_ok(), "packing into memory");
    }
    drop(packer);
    let whole = (journals::recover(lines), journals::recover(bytes.as_slice()));
    match (&whole.0, &whole.1) {
        (Ok(plain), Ok(packed)) => assert_eq!(plain, packed),
        (Err(_), Err(_)) => {}
        (plain, packed) => panic!("{:?} of lines, {:?} packed", plain.as_ref().err(), packed.as_ref().err()),
    }
    bytes.truncate(bytes.len() * usize::from(*cut) / 256);
    // A journal whose lines are sound is so wherever it is cut, once it has its first.
    if let (Ok(_), Err(error)) = (&whole.0, journals::recover(bytes.as_slice())) {
        use journals::JournalError::{Empty, Inconsistent, NotAJournal};
        assert!(matches!(error, Empty | NotAJournal | Inconsistent(_)), "cut: {error}");
    }
}

/// All that is done with recordings.
fn look(recording: &Recording) {
    for at in
        [InstantSpec::Peak, InstantSpec::End, InstantSpec::SinceStart(1_000_000), InstantSpec::Time(u64::MAX)]
    {
        let report = attribution::report(recording, at);
        for format in FORMATS {
            let _ = (format.show)(&report, &Shown { parts: Parts::All, file: None }, Style::default());
        }
    }
    let at = InstantSpec::Peak;
    let moment = || Moment::chosen(Moments { a: at, b: at }, recording, recording);
    if let Ok(report) = diff::report(recording, recording, None, moment()) {
        for format in FORMATS {
            for all in [false, true] {
                let _ = (format.diff)(&report, render::diff::Shown { all }, Style::default());
            }
        }
    }
    let named = ("-", recording);
    let overview = overview::overview(None, named, moment());
    let _ = html::render(&overview);
    for export in EXPORTS {
        if let Ok(content) = (export.export)(recording, Options::default()) {
            assert!(content.write(&mut std::io::sink()).is_ok(), "writing to nowhere");
        }
    }
    let _ = plot::columns(Style::default());
    let _ = redact::redact(recording);
    let mut cut = recording.clone();
    retention::begin_at(&mut cut, recording.target.started_ns.saturating_add(1));
    retention::forget(&mut cut, u64::MAX / 2);
}
