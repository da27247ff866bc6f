//! Text from outside is harmless.

use proptest::prelude::*;

use super::*;

#[test]
fn no_engine_writes_these() {
    for line in [
        "",
        "Estimated max memory in KV cache : ",
        "Estimated max memory in KV cache : ... GiB",
        &format!("Estimated max memory in KV cache : {} GiB", "9".repeat(400)),
        "my program: 5 GiB free",
        "ä[Latency]ö: 1",
    ] {
        assert_eq!(parse_text(line).figures, [], "{line}");
    }
    let stranger = parse_text("INFO: Application startup complete.\nhello");
    assert_eq!((stranger.engine, stranger.candidates), (None, vec![]));
}

#[test]
fn a_log_without_end_takes_no_memory_without_end() {
    let lines: Vec<_> = (0..20_000)
        .map(|index| format!("load_tensors: CUDA{index}{} model buffer size = 1.00 MiB", "x".repeat(500)))
        .collect();
    let log = parse(lines.iter().map(String::as_str));
    assert!(log.figures.len() < 10_000, "{}", log.figures.len());
    assert!(log.figures.iter().all(|found| found.subject.as_ref().is_some_and(|name| name.len() <= 64)));
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,200}", piece in 0_usize..40) {
        let lines = ["Available KV cache memory: ", "| - CUDA0 (x) | 1 = ", "model requires more system memory (", "\u{1b}["];
        let line = format!("{}{text}", lines[piece % lines.len()]);
        let _ = parse_text(&line);
        let _ = is_known(&line);
    }
}
