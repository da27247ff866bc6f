//! What must be there before anything runs, and what a recording would lack.

use spark_trace_agent::doctor::{self, CheckRow, Status};
use spark_trace_recording::verdict::Verdict;
use spark_trace_study::check::{Finding, Here, Machine, Severity, Subject, check};
use spark_trace_study::plan::Plan;
use spark_trace_study::run::Options;
use spark_trace_study::schedule::schedule;

use super::commands::Container;

/// Checks of `doctor` without which the runs cannot be made or compared, besides that of the container's engine.
const NEEDED: &[&str] = &["counters", "cgroups", "cgroup-leaf"];
/// Checks without which the page lacks something that it is about.
const MATTERS: &[&str] = &[
    "lockdown",
    "kernel-types",
    "kernel-symbols",
    "user-symbols",
    "exact-counters",
    "cachestat",
    "beside",
    "nvidia-driver",
    "nvml",
    "gpus",
    "libcuda",
];

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What is in the way, each with what to do next. Nothing runs where there is one.
    pub obstacles: Vec<String>,
    /// What the runs will lack.
    pub warnings: Vec<Lack>,
}

#[derive(Debug)]
pub struct Lack {
    /// A check or a hook.
    pub name: &'static str,
    /// It may name anybody.
    pub found: String,
    pub without: &'static str,
    /// How to get it, where that is known.
    pub remedy: &'static str,
}

impl Lack {
    pub fn sentence(&self) -> String {
        let Self { name, found, without, remedy } = self;
        let remedy = if remedy.is_empty() { String::new() } else { format!("; to get it: {remedy}") };
        format!("{name}: {found}; without it: {without}{remedy}")
    }
}

/// Looks at everything: takes some seconds.
pub fn look(container: &Container) -> Found {
    let report = doctor::run(None, &[]);
    let mut found = of_doctor(&report, container.engine);
    // An engine that does not answer has said so.
    if found.obstacles.is_empty() {
        found.obstacles.extend(image(container, &Here).err());
    }
    found
}

fn of_doctor(report: &doctor::Report, engine: &str) -> Found {
    let mut found = Found::default();
    if let Some(obstacle) = &report.obstacle {
        found.obstacles.push(format!("no recording can be made: {obstacle}"));
    }
    for row in &report.checks {
        let is_needed = NEEDED.contains(&row.name) && row.status.is_fault();
        // One that is not installed is no fault of the machine, but it is one of this command.
        if is_needed || row.name == engine && row.status != Status::Ok {
            found.obstacles.push(lack(row).sentence());
        } else if MATTERS.contains(&row.name) && row.status.is_fault() {
            found.warnings.push(lack(row));
        }
    }
    let missing = report.hooks.iter().filter(|hook| {
        hook.verdict != Verdict::Ok.as_str() && hook.verdict != Verdict::NotApplicable.as_str()
    });
    // One cause, one line: the obstacle has said it.
    let missing = missing.filter(|_| report.can_record);
    found.warnings.extend(missing.map(|hook| Lack {
        name: hook.name,
        found: "the hook does not attach (`spark-trace doctor` has the reason)".to_owned(),
        without: hook.without,
        remedy: "",
    }));
    found
}

fn lack(row: &CheckRow) -> Lack {
    Lack { name: row.name, found: row.found.clone(), without: row.without, remedy: row.remedy }
}

/// Whether the engine has the image: one that is fetched during a run would be in its memory.
fn image(container: &Container, machine: &dyn Machine) -> Result<(), String> {
    let Container { engine, global, image, .. } = container;
    let mut args: Vec<&str> = global.iter().map(String::as_str).collect();
    args.extend(["image", "inspect", "--format", "{{.Id}}", image]);
    machine.engine(engine, &args).map(drop).map_err(|why| {
        format!(
            "{engine} has no image {image} ({why}): `{engine} pull {image}`. If that is the value of an option, write it as \
             --option=value"
        )
    })
}

/// What `study check` finds fatal: nothing is printed of its other findings.
pub fn of_plan(plan: &Plan, options: &Options) -> Vec<String> {
    let report = check(&Subject { plan, options, machine: &Here, left: &schedule(plan), done: &[] });
    let fatal = report.findings.into_iter().filter(|finding| finding.severity == Severity::Fatal);
    fatal
        .map(|Finding { check, found, next, .. }| {
            let next = next.map_or_else(String::new, |next| format!("; next: {next}"));
            format!("{check}: {found}{next}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_agent::doctor::table::CHECKS;

    #[test]
    fn rows_are_those_of_doctor() {
        for name in NEEDED.iter().chain(MATTERS) {
            assert!(CHECKS.iter().any(|check| check.name == *name), "{name}");
        }
        for engine in ["docker", "podman", "nerdctl"] {
            assert!(CHECKS.iter().any(|check| check.name == engine), "{engine}");
        }
    }

    fn report(change: impl Fn(&mut doctor::Report)) -> Found {
        let row = |check: &doctor::table::Check| CheckRow {
            name: check.name,
            probe: check.probe,
            status: Status::Ok,
            found: "found".to_owned(),
            without: check.without,
            remedy: check.remedy,
        };
        let mut report = doctor::Report {
            schema: doctor::SCHEMA,
            schema_version: doctor::SCHEMA_VERSION,
            tool_version: "0",
            host: None,
            can_record: true,
            obstacle: None,
            hooks: vec![],
            libraries: vec![],
            checks: CHECKS.iter().map(row).collect(),
        };
        change(&mut report);
        of_doctor(&report, "docker")
    }

    fn set(report: &mut doctor::Report, name: &str, status: Status) {
        let row = report.checks.iter_mut().find(|row| row.name == name);
        row.unwrap().status = status;
    }

    #[test]
    fn only_what_the_runs_need_is_in_the_way() {
        let fine = report(|_| {});
        assert!(fine.obstacles.is_empty() && fine.warnings.is_empty());
        let podman = report(|report| set(report, "podman", Status::Warning));
        assert!(podman.obstacles.is_empty() && podman.warnings.is_empty());
        let docker = report(|report| set(report, "docker", Status::NotApplicable));
        assert!(docker.obstacles[0].contains("to get it: start the daemon"), "{docker:?}");
        let gpu = report(|report| set(report, "nvml", Status::Missing));
        assert!(gpu.obstacles.is_empty() && gpu.warnings.len() == 1);
        let leaf = report(|report| set(report, "cgroup-leaf", Status::Missing));
        assert_eq!(leaf.obstacles.len(), 1);
        let none = report(|report| report.obstacle = Some("no BTF".to_owned()));
        assert_eq!(none.obstacles, ["no recording can be made: no BTF"]);
    }
}
