//! `demo`: the main job, done for real: the reference workload recorded natively and in a container.
//!
//! Everything is done by command lines that the user can repeat; [`story`] says in words what came out.

pub mod explain;
pub mod inference;
mod runner;
mod steps;
mod workload;

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use spark_trace_agent::doctor::engine::{Answer, ENGINES, Engine};

pub use inference::Inference;
pub use workload::find as find_workload;

/// What the two runs allocate.
pub const NATIVE_ANON: u64 = 128 << 20;
/// The difference that `diff` must find.
pub const CONTAINER_ANON: u64 = NATIVE_ANON + (64 << 20);
pub const SHMEM: u64 = 32 << 20;
/// Unlike the difference in anonymous memory, so that they differ at a glance.
pub const FILE: u64 = 96 << 20;
pub const FILE_NAME: &str = "weights.bin";
/// Long enough for some readings at the default interval.
const HOLD: &str = "2s";

#[derive(Debug, Error)]
pub enum DemoError {
    #[error("the demo traces the kernel, which needs root: run `sudo {0} demo`")]
    NotRoot(String),
    #[error(
        "the reference workload is not found (looked for {0}); name it with --workload, or use `cargo xtask demo`"
    )]
    NoWorkload(String),
    #[error("{} is linked dynamically and cannot run in a container without libraries; `cargo xtask demo` builds it statically", .0.display())]
    Dynamic(PathBuf),
    #[error("cannot use {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {what} is there already; --force replaces it, --dir names another directory", dir.display())]
    Exists { dir: PathBuf, what: &'static str },
    #[error("{engine} does not answer: {reason}")]
    NoEngine { engine: &'static str, reason: String },
    #[error(
        "neither a container engine nor `unshare` (package util-linux) is installed: the second run is not possible"
    )]
    NoSandbox,
    #[error("cannot run {program}")]
    Start { program: String, source: io::Error },
    #[error("{program} failed ({status})")]
    Failed { program: String, status: std::process::ExitStatus },
    #[error("interrupted")]
    Interrupted,
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl DemoError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Where the second run takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Docker,
    Podman,
    /// Own namespaces and an own root directory, made without an engine: not a container.
    Sandbox,
}

impl Place {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Sandbox => "sandbox",
        }
    }

    /// What the second run is called in output and file names.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Docker | Self::Podman => "container",
            Self::Sandbox => "sandbox",
        }
    }

    fn engine(self) -> Option<&'static Engine> {
        ENGINES.iter().find(|engine| engine.name == self.as_str())
    }
}

#[derive(Debug)]
pub struct Options {
    /// An existing directory of ours, absolute.
    pub dir: PathBuf,
    pub workload: PathBuf,
    /// The third run; absent where no workload for it is known.
    pub inference: Option<Inference>,
    /// This program.
    pub spark_trace: PathBuf,
    /// The first of docker, podman and sandbox that works, where none is named.
    pub place: Option<Place>,
    /// Replace what an earlier demo left.
    pub force: bool,
    /// Leave the image and the files of the runs.
    pub keep: bool,
    /// Who called sudo: what is left belongs to them.
    pub owner: Option<(u32, u32)>,
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    Step(&'a str),
    /// A command line that runs now, and where its output or input goes if it matters.
    Command {
        argv: &'a [String],
        redirection: &'a str,
    },
    Note(&'a str),
}

/// The recordings.
#[derive(Debug)]
pub struct Outcome {
    pub native: PathBuf,
    pub container: PathBuf,
    pub place: Place,
    pub inference: Option<PathBuf>,
}

/// Makes the recordings.
pub fn run(options: &Options, report: &mut dyn FnMut(Event<'_>)) -> Result<Outcome, DemoError> {
    workload::check_static(&options.workload)?;
    let place = choose(options.place, report)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DemoError::Runtime)?;
    runtime.block_on(steps::run(options, place, report))
}

fn choose(wanted: Option<Place>, report: &mut dyn FnMut(Event<'_>)) -> Result<Place, DemoError> {
    let mut reasons = Vec::new();
    for place in [Place::Docker, Place::Podman] {
        let Some(engine) = place.engine().filter(|_| wanted.is_none_or(|wanted| wanted == place)) else {
            continue;
        };
        match engine.answer() {
            Answer::Works { .. } => return Ok(place),
            Answer::NotInstalled => reasons.push((engine.name, "not installed".to_owned())),
            Answer::Silent { reason, .. } => reasons.push((engine.name, reason)),
        }
    }
    if wanted.is_some_and(|wanted| wanted != Place::Sandbox)
        && let Some((engine, reason)) = reasons.pop()
    {
        return Err(DemoError::NoEngine { engine, reason });
    }
    if spark_trace_agent::doctor::engine::in_path("unshare").is_none() {
        return Err(DemoError::NoSandbox);
    }
    let why: Vec<_> = reasons.iter().map(|(engine, reason)| format!("{engine}: {reason}")).collect();
    if !why.is_empty() {
        report(Event::Note(&format!(
            "No container engine answers ({}): a sandbox stands in for the container, with own namespaces \
             and an own root directory, but no image and no memory limit.",
            why.join("; ")
        )));
    }
    Ok(Place::Sandbox)
}
