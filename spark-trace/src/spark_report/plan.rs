//! The runs as a plan of a study, so that what runs, resumes and locks studies runs these, too.

use std::time::Duration;

use spark_trace_study::plan::{Environment, Gates, Kind, Model, Order, Plan, Workload};

use super::commands::Pair;

/// A has the native command, B the container's.
pub const NATIVE: &str = "native";
pub const CONTAINER: &str = "container";
/// Runs of each: with two there is a difference between runs of one side, which the other is measured by.
pub const RUNS: u32 = 2;
/// There is one command: the plan's only model.
const MODEL: &str = "command";
/// Recordings have some tens of MiB.
const DISK_SPACE: u64 = 1 << 30;
/// A run that failed is made again as often as the user wishes.
const RETRIES: u32 = u32::MAX - 1;

/// Four runs with the page cache in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// As each run finds it.
    AsFound,
    /// Dropped before each run.
    Dropped,
}

impl Step {
    pub const ALL: [Self; 2] = [Self::AsFound, Self::Dropped];

    /// Its folder.
    pub const fn folder(self) -> &'static str {
        match self {
            Self::AsFound => "as-found",
            Self::Dropped => "without-page-cache",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::AsFound => "step 2: page cache as each run finds it",
            Self::Dropped => "step 3: page cache dropped before each run",
        }
    }
}

pub fn plan(pair: &Pair, step: Step, timeout: Duration) -> Plan {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    // What docs/spark-protocol.md has between the runs. The pools of the driver and the kernel's own caches stay.
    let before = match step {
        Step::AsFound => vec![],
        Step::Dropped => {
            vec![words(&["sync"]), words(&["{spark-trace}", "reclaim", "--page-cache", "--apply"])]
        }
    };
    Plan {
        name: format!("spark-report-{}", step.folder()),
        description: step.title().to_owned(),
        // A, B, B, A: a drift of the machine counts for both alike.
        order: Order::Abba,
        seed: 0,
        runs: RUNS,
        looks: vec![],
        end_at_looks: false,
        warmups: 0,
        timeout,
        retries: RETRIES,
        give_up_after: None,
        disk_space: Some(DISK_SPACE),
        environments: vec![environment(NATIVE, &pair.native), environment(CONTAINER, &pair.container.line)],
        models: vec![Model {
            name: MODEL.to_owned(),
            files: vec![],
            parameters: None,
            architecture: None,
            note: String::new(),
            timeout: None,
            values: Default::default(),
        }],
        workload: Workload { command: vec![], prepare: vec![], before, record: vec![], results: vec![] },
        estimate: None,
        dataset: None,
        gates: Gates::default(),
        metrics: vec![],
        primary: vec![],
        values: Default::default(),
    }
}

fn environment(name: &str, line: &[String]) -> Environment {
    Environment {
        name: name.to_owned(),
        // Its command stands as it is: nothing is put before it.
        kind: Kind::Native,
        command: line.iter().map(|word| literal(word)).collect(),
        image: None,
        flags: vec![],
        rootfs: None,
        import_program: None,
        ulimits: vec![],
        mounts: vec![],
        values: Default::default(),
    }
}

/// A word in which nothing is a placeholder.
fn literal(word: &str) -> String {
    word.replace('{', "{{").replace('}', "}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spark_report::commands;
    use spark_trace_study::run::{self, Options};
    use spark_trace_study::schedule::schedule;

    fn pair() -> Pair {
        let container = "docker run --rm -e 'A={x}' image run '{\"level\": 3}'";
        commands::read("sh -c 'exit 0' '{model}'", container, std::path::Path::new("/")).unwrap()
    }

    #[test]
    fn a_plan_runs_the_commands_as_they_were_given_in_the_order_abba() {
        let options = Options {
            dir: "/x".into(),
            spark_trace: "/bin/spark-trace".into(),
            workload: None,
            cores: Err("unknown".to_owned()),
        };
        for step in Step::ALL {
            let plan = plan(&pair(), step, Duration::from_secs(60));
            let lines = run::dry_run(&plan, &options).unwrap();
            let order: Vec<_> = lines.iter().map(|(slot, _)| slot.environment.as_str()).collect();
            assert_eq!(order, [NATIVE, CONTAINER, CONTAINER, NATIVE]);
            assert_eq!(lines[0].1, pair().native);
            assert_eq!(lines[1].1, pair().container.line);
            assert_eq!(schedule(&plan).len(), 4);
        }
    }

    #[test]
    fn page_cache_is_dropped_in_one_step_alone() {
        let before = |step| plan(&pair(), step, Duration::ZERO).workload.before;
        assert!(before(Step::AsFound).is_empty());
        assert_eq!(before(Step::Dropped).len(), 2);
    }
}
