//! What types cannot say of a plan.

use std::collections::BTreeSet;
use std::path::Path;

use super::command::{BUILTIN_PLACEHOLDERS, RunPaths, Values, line};
use super::figures;
use super::files::{LOG, MESSAGES, RECORDING};
use super::plan::{Dataset, Environment, Kind, Metric, Model, Plan, PlanError};
use super::primary::{Margin, Primary};
use super::ulimit;
use spark_trace_statistics::sequential::MOST_LOOKS;

impl Plan {
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text).map_err(|error| PlanError::form(text, &error))?;
        plan.check()?;
        Ok(plan)
    }

    /// What types cannot say.
    fn check(&self) -> Result<(), PlanError> {
        name("name", &self.name)?;
        if self.runs == 0 {
            return Err(PlanError::at("runs", "0 runs show nothing; write at least 2"));
        }
        if self.workload.command.is_empty() {
            return Err(PlanError::at("workload.command", "is empty; name a program and its arguments"));
        }
        several("environments", self.environments.iter().map(|environment| &environment.name))?;
        several("models", self.models.iter().map(|model| &model.name))?;
        self.environments.iter().try_for_each(environment)?;
        if self.give_up_after == Some(0) {
            return Err(PlanError::at(
                "give-up-after",
                "0 failures would leave out every run; write at least 1",
            ));
        }
        looks(&self.looks, self.runs)?;
        if self.end_at_looks && self.looks.is_empty() {
            return Err(PlanError::at("end-at-looks", "there are no `looks` at which a model could end"));
        }
        if let Some(dataset) = &self.dataset {
            self::dataset(self, dataset)?;
        }
        for file in &self.workload.results {
            result_file(file)?;
        }
        let metrics: Vec<_> = self.metrics.iter().map(|metric| &metric.name).collect();
        unique("metrics", metrics.into_iter())?;
        for metric in &self.metrics {
            self::metric(metric)?;
        }
        unique("primary", self.primary.iter().map(|primary| &primary.metric))?;
        self.primary.iter().try_for_each(|primary| self::primary(primary, &self.metrics))?;
        for environment in &self.environments {
            for model in &self.models {
                placeholders(self, environment, model)
                    .map_err(|what| PlanError::at(format!("{} of {}", environment.name, model.name), what))?;
            }
        }
        Ok(())
    }
}

fn looks(looks: &[u32], runs: u32) -> Result<(), PlanError> {
    let rise = looks.windows(2).all(|pair| pair[0] < pair[1]);
    let within = looks.iter().all(|round| *round > 1 && *round < runs);
    if rise && within && looks.len() < MOST_LOOKS {
        return Ok(());
    }
    let what = format!(
        "must rise, begin at 2 or later and end before the last of the {runs} rounds, and be fewer than {MOST_LOOKS}: \
         the look after the last round needs no mention"
    );
    Err(PlanError::at("looks", what))
}

fn primary(primary: &Primary, metrics: &[Metric]) -> Result<(), PlanError> {
    let Primary { metric, margin, .. } = primary;
    if figures::known(metric).is_none() && !metrics.iter().any(|described| described.name == *metric) {
        let what = format!("`{metric}` is no metric that is known or that `metrics` describes");
        return Err(PlanError::at("primary", what));
    }
    match margin.map(Margin::size) {
        Some(size) if !(size.is_finite() && size > 0.0) => {
            Err(PlanError::at(format!("primary.{metric}"), "a margin is above 0"))
        }
        _ => Ok(()),
    }
}

/// Names are parts of file names and of tables.
fn name(place: &str, name: &str) -> Result<(), PlanError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) || name.starts_with('.') {
        let what = format!("`{name}` is no name: use up to 64 letters, digits, `-`, `_` and `.`");
        return Err(PlanError::at(place, what));
    }
    Ok(())
}

/// Files that a run's folder has without a benchmark.
const OURS: [&str; 3] = [RECORDING, LOG, MESSAGES];

/// A file in the folder of its run: one elsewhere could be of another run.
fn result_file(file: &str) -> Result<(), PlanError> {
    const PLACE: &str = "workload.results";
    if file.contains('/') {
        let what =
            format!("`{file}` has a `/`: write the file into {{run.dir}}, and name it without the folder");
        return Err(PlanError::at(PLACE, what));
    }
    if OURS.contains(&file) {
        return Err(PlanError::at(PLACE, format!("spark-trace itself writes `{file}`; use another name")));
    }
    name(PLACE, file)
}

fn unique<'a>(place: &str, mut names: impl Iterator<Item = &'a String>) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    match names.find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(PlanError::at(place, format!("`{twice}` is there twice"))),
        None => Ok(()),
    }
}

fn several<'a>(place: &str, names: impl Iterator<Item = &'a String> + Clone) -> Result<(), PlanError> {
    if names.clone().next().is_none() {
        return Err(PlanError::at(place, "is empty"));
    }
    names.clone().try_for_each(|text| name(place, text))?;
    unique(place, names)
}

fn environment(environment: &Environment) -> Result<(), PlanError> {
    let place = format!("environments.{}", environment.name);
    let Environment { kind, image, rootfs, flags, import_program, ulimits, mounts, .. } = environment;
    for text in ulimits {
        ulimit::parse(text).map_err(|what| PlanError::at(format!("{place}.ulimits"), what))?;
    }
    let wrong = match kind {
        Kind::Docker | Kind::Podman if image.is_none() => Some("a container needs an `image`"),
        Kind::Chroot if rootfs.is_none() => {
            Some("a chroot needs its `rootfs`; `spark-trace study rootfs IMAGE DIR` makes one")
        }
        Kind::Native | Kind::Chroot if image.is_some() => Some("only a container has an `image`"),
        Kind::Native | Kind::Chroot if !flags.is_empty() => Some("only a container has `flags`"),
        Kind::Native | Kind::Chroot if import_program.is_some() => {
            Some("only a container's image can be made by `import-program`")
        }
        Kind::Native | Kind::Docker | Kind::Podman if rootfs.is_some() => {
            Some("only a chroot has a `rootfs`")
        }
        Kind::Docker | Kind::Podman if !ulimits.is_empty() || !mounts.is_empty() => {
            Some("a container has its limits and mounts in `flags`: --ulimit, -v")
        }
        Kind::Native if !mounts.is_empty() => Some("only a chroot has `mounts`"),
        _ => None,
    };
    match wrong {
        Some(what) => Err(PlanError::at(place, what)),
        None => Ok(()),
    }
}

fn dataset(plan: &Plan, dataset: &Dataset) -> Result<(), PlanError> {
    if plan.environment(&dataset.environment).is_none() {
        let what = format!("the plan has no environment `{}`", dataset.environment);
        return Err(PlanError::at("dataset.environment", what));
    }
    if dataset.ways.is_empty() || dataset.ways.iter().any(|way| way.command.is_empty()) {
        return Err(PlanError::at("dataset.ways", "each way needs a `command`"));
    }
    Ok(())
}

fn metric(metric: &Metric) -> Result<(), PlanError> {
    let place = format!("metrics.{}", metric.name);
    name(&place, &metric.name)?;
    let Some(regex) = &metric.regex else { return Ok(()) };
    let compiled = regex::Regex::new(regex).map_err(|e| PlanError::at(&place, e.to_string()))?;
    // The whole match is a group, too.
    if compiled.captures_len() != 2 {
        return Err(PlanError::at(place, "`regex` needs exactly one group, around the number"));
    }
    Ok(())
}

/// Whether every placeholder of a cell has a value.
fn placeholders(plan: &Plan, environment: &Environment, model: &Model) -> Result<(), String> {
    for values in [&plan.values, &environment.values, &model.values] {
        if let Some(name) = values.keys().find(|name| BUILTIN_PLACEHOLDERS.contains(&name.as_str())) {
            return Err(format!("`values.{name}`: `{{{name}}}` is given and cannot be set"));
        }
    }
    let places = RunPaths {
        study: Path::new("/"),
        run: Path::new("/"),
        workload: "workload",
        spark_trace: "spark-trace",
        fast_cpus: Some("0"),
    };
    let values = Values::of(plan, environment, model, 1, &places);
    line(plan, environment, &values)?;
    let commands = plan.workload.prepare.iter().chain(&plan.workload.before).flatten();
    let others = commands.chain(&plan.workload.record).chain(&model.files).chain(&environment.import_program);
    let dataset = plan.dataset.iter().flat_map(|dataset| {
        let ways = dataset.ways.iter().flat_map(|way| way.probe.iter().chain(&way.command));
        ways.chain([&dataset.file])
    });
    let others = others.chain(&environment.mounts).chain(dataset);
    others.map(|text| values.fill(text)).try_for_each(|filled| filled.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_files_in_the_folder_of_their_run() {
        let plan = |results: &str| {
            let environment = "[[environments]]\nname = \"a\"\nkind = \"native\"\n[[models]]\nname = \"m\"\n";
            let text = format!(
                "name = \"p\"\nruns = 2\n{environment}[workload]\ncommand = [\"true\"]\nresults = [\"{results}\"]\n"
            );
            Plan::parse(&text)
        };
        assert_eq!(plan("bench.json").unwrap().workload.results, ["bench.json"]);
        for (wrong, said) in [
            ("/etc/passwd", "without the folder"),
            ("../bench.json", "without the folder"),
            ("..", "is no name"),
            ("", "is no name"),
            (LOG, "spark-trace itself writes"),
            (RECORDING, "spark-trace itself writes"),
        ] {
            let error = plan(wrong).unwrap_err().to_string();
            assert!(error.starts_with("`workload.results`") && error.contains(said), "{wrong}: {error}");
        }
    }
}
