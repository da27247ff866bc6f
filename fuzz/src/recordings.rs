//! Recordings and journals, as strangers may send them.

use std::path::Path;

use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::moment::{Moment, Moments};
use spark_trace_analysis::{attribution, diff, overview};
use spark_trace_recording::{Recording, journal as journals, read, redact, retention};
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
        let _ = (export.export)(recording, Options::default());
    }
    let _ = plot::columns(Style::default());
    let _ = redact::redact(recording);
    let mut cut = recording.clone();
    retention::begin_at(&mut cut, recording.target.started_ns.saturating_add(1));
    retention::forget(&mut cut, u64::MAX / 2);
}
