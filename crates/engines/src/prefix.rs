//! What stands before the text of a line: colours, the container's name, the journal's and the logger's fields. All of it is
//! taken off here and nowhere else.

use std::sync::LazyLock;

use regex::Regex;
use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::engine::Engine;

/// Looked at of a line. The longest known line has its last figure before this.
pub const LONGEST: usize = 4 << 10;

/// A kind of prefix.
struct Prefix {
    pattern: &'static str,
    /// Group with the rank of the process that writes.
    rank: bool,
    /// Only these write it.
    engines: &'static [Engine],
}

const fn prefix(pattern: &'static str) -> Prefix {
    Prefix { pattern, rank: false, engines: &[] }
}

impl Prefix {
    const fn rank(mut self) -> Self {
        self.rank = true;
        self
    }

    const fn of(mut self, engines: &'static [Engine]) -> Self {
        self.engines = engines;
        self
    }
}

const VLLM: &[Engine] = &[Engine::Vllm, Engine::VllmV0];
const TENSORRT_LLM: &[Engine] = &[Engine::TensorRtLlm, Engine::TensorRtLlmCpp];

#[rustfmt::skip]
const PREFIXES: &[Prefix] = &[
    // docker compose
    prefix(r"^[A-Za-z0-9_.-]+ +\| "),
    // journald and syslog
    prefix(r"^[A-Z][a-z]{2} +[0-9]{1,2} [0-9:]{8} \S+ [^\s\[]+\[[0-9]+\]: "),
    // mpirun --tag-output
    prefix(r"^\[[0-9]+,([0-9]+)\]<std(?:out|err)>: ?").rank(),
    // vllm/utils/system_utils.py (decorate_logs)
    prefix(r"^\(Worker(?:_(\w+))? pid=[0-9]+\) ").rank().of(&[Engine::Vllm]),
    prefix(r"^\((?:EngineCore|APIServer|ApiServer)\w* pid=[0-9]+\) ").of(&[Engine::Vllm]),
    // vllm/logging_utils/formatter.py; in 2024 without the opening bracket
    prefix(r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [0-9]{2}-[0-9]{2} [0-9:]{8} \[?[\w/.]+\.py:[0-9]+\] ").of(VLLM),
    // SGLang; the rank where there is more than one
    prefix(r"^\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(?: ((?:[A-Z]+[0-9]+ ?)+))?\] ").rank(),
    // tensorrt_llm/logger.py, and the C++ logger
    prefix(r"^\[[0-9]{2}/[0-9]{2}/[0-9]{4}-[0-9:]{8}\] "),
    prefix(r"^\[TRT-LLM\] ").of(TENSORRT_LLM),
    prefix(r"^\[RANK ([0-9]+)\] ").rank(),
    prefix(r"^\[[IWEVD]\] "),
    prefix(r"^\[TensorRT-LLM\](?:\[[A-Z]+\])? ").of(TENSORRT_LLM),
    // llama.cpp, common/log.cpp
    prefix(r"^[0-9]+\.[0-9]{2}\.[0-9]{3}\.[0-9]{3} [A-Z] ").of(&[Engine::LlamaCpp]),
];

static ANY: LazyLock<Option<RegexSet>> = LazyLock::new(|| {
    RegexSetBuilder::new(PREFIXES.iter().map(|prefix| prefix.pattern)).unicode(false).build().ok()
});
static EACH: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| PREFIXES.iter().map(|prefix| Regex::new(prefix.pattern).ok()).collect());

/// A line without what stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clean {
    pub text: String,
    /// `TP0`, `DP1_TP1_EP3`, `0`.
    pub rank: Option<String>,
    /// For each prefix that only some engines write, these.
    pub engines: Vec<&'static [Engine]>,
}

pub fn clean(line: &str) -> Clean {
    let text = without_colours(cut(line));
    let (mut rest, mut rank, mut engines) = (text.as_str(), None, Vec::new());
    // Each once: what looks like one behind the text's beginning is text.
    let mut taken = Vec::new();
    while let Some((index, prefix)) = first_prefix(rest) {
        if taken.contains(&index) {
            break;
        }
        taken.push(index);
        let Some(captures) = EACH.get(index).and_then(|regex| regex.as_ref()?.captures(rest)) else { break };
        if prefix.rank
            && let Some(found) = captures.get(1)
        {
            rank = Some(found.as_str().trim().to_owned());
        }
        if !prefix.engines.is_empty() {
            engines.push(prefix.engines);
        }
        let end = captures.get(0).map_or(0, |whole| whole.end());
        rest = rest.get(end..).unwrap_or_default();
    }
    Clean { text: rest.to_owned(), rank, engines }
}

fn first_prefix(text: &str) -> Option<(usize, &'static Prefix)> {
    let index = ANY.as_ref()?.matches(text.as_bytes()).iter().next()?;
    Some((index, PREFIXES.get(index)?))
}

/// At most [`LONGEST`] bytes of whole characters.
fn cut(line: &str) -> &str {
    let line = line.trim_end_matches(['\n', '\r']);
    let mut end = line.len().min(LONGEST);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or_default()
}

/// Without the terminal's control sequences (ECMA-48: ESC, `[`, parameters, a letter).
fn without_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.strip_prefix('[').map_or(part, |sequence| {
            let end = sequence
                .find(|letter: char| letter.is_ascii_alphabetic())
                .map_or(sequence.len(), |at| at + 1);
            sequence.get(end..).unwrap_or_default()
        });
        plain.push_str(rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> (String, Option<String>) {
        let clean = clean(line);
        (clean.text, clean.rank)
    }

    #[test]
    fn every_prefix_compiles() {
        assert!(ANY.is_some() && EACH.iter().all(Option::is_some));
    }

    #[test]
    fn prefixes_come_off_one_behind_the_other() {
        let rank = |rank: &str| Some(rank.to_owned());
        for (line, wanted, of) in [
            ("server_1  | (EngineCore pid=7) INFO 04-29 12:00:58 [a.py:81] x | y", "x | y", None),
            ("(Worker_TP1 pid=4) INFO 08-14 14:07:20 [v1/worker/gpu_worker.py:6] x", "x", rank("TP1")),
            ("(Worker_DP1_TP1_EP3 pid=4) INFO 08-14 14:07:20 [a.py:6] x", "x", rank("DP1_TP1_EP3")),
            ("\u{1b}[0;36m(EngineCore_DP0 pid=4)\u{1b}[0;0m INFO 08-14 14:07:20 [a.py:6] x", "x", None),
            ("INFO 12-13 19:54:18 worker.py:243] x", "x", None),
            ("[2025-10-16 09:06:10 TP5] x", "x", rank("TP5")),
            ("[2025-10-16 09:06:10 DP1 TP5] x", "x", rank("DP1 TP5")),
            ("[2025-10-16 09:06:10] x", "x", None),
            ("[10/01/2026-10:00:00] [TRT-LLM] [RANK 3] [I] x", "x", rank("3")),
            ("[TensorRT-LLM][INFO] [MemUsageChange] x", "[MemUsageChange] x", None),
            ("Jun 06 07:22:24 host ollama[2401]: time=2026 x", "time=2026 x", None),
            ("0.00.676.453 I f: |   - CUDA0 (GB10) | x", "f: |   - CUDA0 (GB10) | x", None),
            ("  CUDA0: x", "  CUDA0: x", None),
        ] {
            assert_eq!(text(line), (wanted.to_owned(), of), "{line}");
        }
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "ä".repeat(LONGEST);
        assert!(clean(&long).text.len() <= LONGEST);
        assert_eq!(clean("\u{1b}").text, "");
        assert_eq!(clean("a\u{1b}[").text, "a");
    }
}
