//! Where the inference engine is at one time: the stage that it is in, or the last one that it went through.

use serde::Serialize;
use spark_trace_engines::{Engine, Stage, Version};

use crate::derived::Derived;
use crate::engine_run::{self, Evidence, Parts};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineNow {
    pub engine: Engine,
    /// As its makers write it.
    pub title: Option<&'static str>,
    pub version: Option<Version>,
    /// Absent where no stage is known.
    pub stage: Option<StageNow>,
    /// What its device memory is for; absent where no stage is known.
    pub parts: Option<Parts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StageNow {
    pub stage: Stage,
    pub begin_ns: u64,
    /// Absent while it goes on.
    pub end_ns: Option<u64>,
    pub evidence: Evidence,
}

/// Absent where no engine is known.
pub fn at<'a>(run: impl Into<Derived<'a>>, at_ns: u64) -> Option<EngineNow> {
    let report = engine_run::report(run, at_ns)?;
    let begun = report.stages.iter().filter(|row| row.span.begin_ns <= at_ns);
    let latest = begun.max_by_key(|row| row.span.begin_ns);
    Some(EngineNow {
        engine: report.engine?,
        title: report.title,
        version: report.version,
        stage: latest.map(|row| StageNow {
            stage: row.stage,
            begin_ns: row.span.begin_ns,
            end_ns: row.span.end_ns.filter(|end_ns| *end_ns <= at_ns),
            evidence: row.evidence,
        }),
        parts: report.parts,
    })
}

#[cfg(test)]
mod tests {
    use spark_trace_recording::{LogLine, Recording};
    use spark_trace_testing::{SECOND, START, empty};

    use super::*;

    fn recording() -> Recording {
        let lines = [
            (
                1,
                "(EngineCore pid=7) INFO 06-10 10:00:00 [core.py:1] Initializing a V1 LLM engine (v0.25.1) with config: x",
            ),
            (2, "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_model_runner.py:1] Starting to load model m..."),
            (
                9,
                "(EngineCore pid=7) INFO 06-10 10:00:00 [gpu_worker.py:1] Available KV cache memory: 70.00 GiB",
            ),
            (12, "INFO:     Application startup complete."),
        ];
        let mut recording = empty();
        recording.provenance.log_lines = lines
            .iter()
            .map(|(second, text)| LogLine {
                at_ns: START + second * SECOND,
                stream: "stderr".into(),
                text: (*text).into(),
            })
            .collect();
        recording
    }

    #[test]
    fn the_stage_is_that_of_the_time() {
        let recording = recording();
        let stage = |second: u64| {
            let now = at(&recording, START + second * SECOND).unwrap();
            assert_eq!((now.engine, now.title), (Engine::Vllm, Some("vLLM")));
            now.stage.map(|row| (row.stage, (row.begin_ns - START) / SECOND, row.end_ns))
        };
        assert_eq!(stage(1), None, "nothing is loaded yet");
        assert_eq!(stage(5), Some((Stage::Weights, 2, None)));
        assert_eq!(stage(10), Some((Stage::KvAllocation, 9, None)));
        assert_eq!(stage(30), Some((Stage::Serving, 12, None)));
        assert_eq!(at(&empty(), START), None);
    }
}
