//! The table of engines: a row each. An engine or a version more is a row more.

use crate::engine::Engine;
use crate::row::{EngineRow, LineRow, line};

mod llama_cpp;
mod ollama;
mod others;
mod sglang;
mod tensorrt_llm;
mod vllm;

pub const ENGINES: &[EngineRow] = &[
    tensorrt_llm::ROW,
    tensorrt_llm::CPP_ROW,
    vllm::ROW,
    vllm::V0_ROW,
    sglang::ROW,
    llama_cpp::ROW,
    ollama::ROW,
    others::LMDEPLOY_PYTORCH,
    others::LMDEPLOY_TURBOMIND,
    others::XINFER,
    others::COMFYUI,
];

/// Lines of servers that many engines have in them: they tell none of them.
pub const COMMON_LINES: &[LineRow] = &[
    // uvicorn
    line(&[], r"Application startup complete\.", &[])
        .marks(&[(crate::row::Edge::Begins, crate::engine::Stage::Serving)]),
];

/// The row of an engine. Every engine has one: a test sees to it.
pub fn row(engine: Engine) -> Option<&'static EngineRow> {
    ENGINES.iter().find(|row| row.engine == engine)
}
