//! `spark-report`: docs/spark-protocol.md as one command, for the owner of a DGX Spark.
//!
//! The runs are two small studies ([`plan`]): what runs, locks and resumes studies does so here. What their recordings say
//! ([`facts`]) is held against the outcomes ([`outcome`]), and makes a page ([`page`]).

pub mod commands;
pub mod facts;
pub mod folder;
pub mod outcome;
pub mod page;
pub mod plan;
pub mod preflight;
mod words;
