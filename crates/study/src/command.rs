//! From a plan to the command line of one run: lists of arguments, never a line for a shell.

use std::collections::BTreeMap;
use std::path::Path;

use super::plan::{Environment, Kind, Model, Plan};

/// Placeholders that are there without being written down.
pub(super) const BUILTIN_PLACEHOLDERS: &[&str] = &[
    "model",
    "environment",
    "iteration",
    "run.dir",
    "study.dir",
    "workload",
    "workload.name",
    "spark-trace",
    "cpus.fast",
];

/// What placeholders stand for in one run.
#[derive(Debug)]
pub struct Values(BTreeMap<String, String>);

/// What is the same for all runs on this machine.
#[derive(Debug, Clone)]
pub struct RunPaths<'a> {
    pub study: &'a Path,
    pub run: &'a Path,
    /// The reference workload; empty where none is found.
    pub workload: &'a str,
    /// This program.
    pub spark_trace: &'a str,
    /// The CPUs of the fastest type, as a list; absent where that is unknown.
    pub fast_cpus: Option<&'a str>,
}

impl Values {
    /// The narrower wins: the run, then the model, the environment, the plan.
    pub fn of(
        plan: &Plan,
        environment: &Environment,
        model: &Model,
        iteration: u32,
        places: &RunPaths<'_>,
    ) -> Self {
        let workload_name = Path::new(places.workload).file_name().unwrap_or_default();
        let given = [
            ("model", model.name.clone()),
            ("environment", environment.name.clone()),
            ("iteration", iteration.to_string()),
            ("run.dir", places.run.display().to_string()),
            ("study.dir", places.study.display().to_string()),
            ("workload", places.workload.to_owned()),
            ("workload.name", workload_name.to_string_lossy().into_owned()),
            ("spark-trace", places.spark_trace.to_owned()),
        ];
        let written = [&plan.values, &environment.values, &model.values].into_iter().flatten();
        let written = written.map(|(name, value)| (name.clone(), value.clone()));
        let given = given.into_iter().chain(places.fast_cpus.map(|list| ("cpus.fast", list.to_owned())));
        Self(written.chain(given.map(|(name, value)| (name.to_owned(), value))).collect())
    }

    /// The text with its placeholders filled in; values may hold placeholders of those that are given.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        self.fill_to_depth(text, 4)
    }

    fn fill_to_depth(&self, text: &str, depth: u32) -> Result<String, String> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            filled.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(doubled) = rest.strip_prefix(brace) {
                filled.push_str(brace);
                rest = doubled;
                continue;
            }
            let (name, after) = match (brace, rest.split_once('}')) {
                ("{", Some(parts)) => parts,
                _ => return Err(format!("`{text}` has a brace alone; write `{brace}{brace}` for a brace")),
            };
            let value = self.0.get(name).ok_or_else(|| self.unknown(text, name))?;
            if depth == 0 {
                return Err(format!("`{text}`: the value of `{{{name}}}` leads to itself"));
            }
            filled.push_str(&self.fill_to_depth(value, depth - 1)?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn unknown(&self, text: &str, name: &str) -> String {
        if name == "cpus.fast" {
            return format!(
                "`{text}`: this machine does not say which of its CPUs are the fastest; write their list"
            );
        }
        let known: Vec<_> = self.0.keys().map(|name| format!("{{{name}}}")).collect();
        format!("`{text}`: unknown placeholder `{{{name}}}`; known are {}", known.join(", "))
    }
}

/// The command that `spark-trace record` runs.
pub fn line(plan: &Plan, environment: &Environment, values: &Values) -> Result<Vec<String>, String> {
    let command =
        template(plan, environment).iter().map(|text| values.fill(text)).collect::<Result<_, _>>()?;
    wrapped(environment, values, command)
}

/// The words of the command, with their placeholders: the environment's own, else the plan's.
pub fn template<'a>(plan: &'a Plan, environment: &'a Environment) -> &'a [String] {
    if environment.command.is_empty() { &plan.workload.command } else { &environment.command }
}

/// A command as it is run in an environment.
pub fn wrapped(
    environment: &Environment,
    values: &Values,
    command: Vec<String>,
) -> Result<Vec<String>, String> {
    let fill = |texts: &[String]| texts.iter().map(|text| values.fill(text)).collect::<Result<Vec<_>, _>>();
    let filled = |text: &Option<String>| values.fill(text.as_deref().unwrap_or_default());
    let mut line = match environment.kind {
        Kind::Native => vec![],
        Kind::Chroot => {
            let mut line = fill(&["{spark-trace}", "chroot"].map(str::to_owned))?;
            for mount in fill(&environment.mounts)? {
                line.extend(["--mount".to_owned(), mount]);
            }
            line.extend([filled(&environment.rootfs)?, "--".to_owned()]);
            line
        }
        Kind::Docker | Kind::Podman => {
            let engine = environment.kind.engine().unwrap_or_default();
            let mut line: Vec<String> = [engine, "run", "--rm"].map(str::to_owned).into();
            line.extend(fill(&environment.flags)?);
            line.push(filled(&environment.image)?);
            line
        }
    };
    line.extend(command);
    Ok(line)
}
