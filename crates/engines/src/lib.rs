//! Inference engines, in one table: [`ENGINES`]. A row says by what an engine is recognised, which free memory it reads and
//! when, how its cache follows from that, what its parameters are called, and what the lines of its log mean.
//! [`parse`] reads a log by it.

pub mod benchmark;
mod engine;
mod figure;
mod log;
mod number;
mod prefix;
mod recognise;
mod row;
mod table;
mod version;

pub use engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
pub use figure::{Figure, Unit};
pub use log::{
    BufferLine, EngineLog, Failure, FigureValue, Mark, is_known, parse, parse_text, prepare, states,
};
pub use number::Value;
pub use prefix::LONGEST as LONGEST_LINE;
pub use recognise::{by_arguments, by_comm, by_module, decide, own_arguments};
pub use row::{AdviceRow, EngineRow, Parameter, Position, ReadingRow, Sign, Variant};
pub use table::{ENGINES, row};
pub use version::{Version, VersionRange};

#[cfg(test)]
mod tests;
