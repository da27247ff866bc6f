//! The name of an inference engine as an option's value.

use clap::builder::{PossibleValuesParser, TypedValueParser};

use spark_trace_engines::Engine;
use spark_trace_recording::word::Words;

pub fn engines() -> impl TypedValueParser<Value = Engine> {
    // The parser lets nothing through that is not an engine's name.
    PossibleValuesParser::new(Engine::ALL.iter().map(|engine| engine.as_str())).try_map(|name| {
        let found = Engine::ALL.iter().find(|engine| engine.as_str() == name).copied();
        found.ok_or("unknown engine")
    })
}
