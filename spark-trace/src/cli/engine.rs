//! The name of an inference engine as an option's value.

use spark_trace_engines::Engine;
use spark_trace_recording::word::Words;

pub fn engine(text: &str) -> Result<Engine, String> {
    let found = Engine::ALL.iter().find(|engine| engine.as_str() == text).copied();
    let names = || Engine::ALL.iter().map(|engine| engine.as_str()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("unknown engine; known are {}", names()))
}
