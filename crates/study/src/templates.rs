//! Plans to begin with. A template is a file and a row of [`TEMPLATES`].

#[derive(Debug)]
pub struct Template {
    pub name: &'static str,
    pub about: &'static str,
    pub text: &'static str,
}

pub const TEMPLATES: &[Template] = &[
    Template {
        name: "demo",
        about: "The reference workload natively and in Docker: no GPU, minutes",
        text: include_str!("templates/demo.toml"),
    },
    Template {
        name: "quick",
        about: "One model, three runs natively and in Docker: whether everything works",
        text: include_str!("templates/quick.toml"),
    },
    Template {
        name: "phase2-baseline",
        about: "Ten models natively (chroot) and in Docker with NVIDIA's flags, 30 runs each",
        text: include_str!("templates/phase2-baseline.toml"),
    },
    Template {
        name: "phase2-optimised",
        about: "The same models natively, in Docker, and in Docker with chosen options, 30 runs each",
        text: include_str!("templates/phase2-optimised.toml"),
    },
    Template {
        name: "phase1-replication",
        about: "Caches kept or dropped, engine in the layer or on a bind mount, one model, 10 runs each",
        text: include_str!("templates/phase1-replication.toml"),
    },
    Template {
        name: "phase2-docker-options",
        about: "Docker's options one by one and combined, and natively, three models, 10 runs each",
        text: include_str!("templates/phase2-docker-options.toml"),
    },
    Template {
        name: "phase2-exploratory",
        about: "Ways to pass the GPU, ipc, cgroup and engine, one model, 10 runs each",
        text: include_str!("templates/phase2-exploratory.toml"),
    },
    Template {
        name: "vllm-spark",
        about: "vLLM on a DGX Spark natively and in Docker, three models, 10 runs each; never run on one",
        text: include_str!("templates/vllm-spark.toml"),
    },
    Template {
        name: "llama-spark",
        about: "llama.cpp on a DGX Spark natively and in Docker, two models, 10 runs each; never run on one",
        text: include_str!("templates/llama-spark.toml"),
    },
];

pub fn find(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::command::{self, RunPaths, Values};
    use crate::plan::Plan;
    use crate::schedule::schedule;

    #[test]
    fn every_template_is_a_plan() {
        for template in TEMPLATES {
            let plan = Plan::parse(template.text).unwrap_or_else(|e| panic!("{}: {e}", template.name));
            assert_eq!(plan.name, template.name);
            assert!(!schedule(&plan).is_empty());
        }
    }

    /// A figure that nothing can report would fail every run.
    #[test]
    fn what_a_template_requires_is_a_known_metric() {
        for template in TEMPLATES {
            let plan = Plan::parse(template.text).unwrap();
            for metric in plan.metrics.iter().filter(|metric| metric.required && metric.regex.is_none()) {
                assert!(crate::figures::known(&metric.name).is_some(), "{}: {}", template.name, metric.name);
            }
        }
    }

    #[test]
    fn one_run_of_vllm_is_a_server_and_its_client() {
        let plan = Plan::parse(find("vllm-spark").unwrap().text).unwrap();
        let (study, run) = (Path::new("/study"), Path::new("/study/run"));
        let places = RunPaths { study, run, workload: "", spark_trace: "spark-trace", fast_cpus: None };
        let values = Values::of(&plan, &plan.environments[1], &plan.models[0], 1, &places);
        let line = command::line(&plan, &plan.environments[1], &values).unwrap();
        let script = line.last().unwrap();
        assert!(
            script.contains(
                "vllm serve \"/data/models/huggingface/Qwen/Qwen2.5-Math-1.5B-Instruct\" --port 8000"
            )
        );
        assert!(script.contains("--num-prompts 200 --max-concurrency 16\n"), "{script}");
        // The shell itself finds nothing wrong with it.
        let checked = std::process::Command::new("bash").args(["-n", "-c", script]).output();
        assert!(checked.is_ok_and(|output| output.status.success() && output.stderr.is_empty()));
    }

    #[test]
    fn the_demos_image_has_the_workload_under_its_own_name() {
        let plan = Plan::parse(find("demo").unwrap().text).unwrap();
        let docker = plan.environment("docker").unwrap();
        let (study, run) = (Path::new("/study"), Path::new("/study/run"));
        let places = RunPaths {
            study,
            run,
            workload: "/opt/another-name",
            spark_trace: "spark-trace",
            fast_cpus: None,
        };
        let values = Values::of(&plan, docker, &plan.models[0], 1, &places);
        let line = command::line(&plan, docker, &values).unwrap();
        let image = line.iter().position(|word| word == "spark-trace-study-demo:latest").unwrap();
        assert_eq!(line[image + 1..][..2], ["/another-name", "alloc"], "{line:?}");
    }

    #[test]
    fn the_baseline_is_what_the_paper_needs() {
        let plan = Plan::parse(find("phase2-baseline").unwrap().text).unwrap();
        let measured = schedule(&plan).iter().filter(|slot| !slot.warmup).count();
        assert_eq!((plan.models.len(), plan.runs, measured), (10, 30, 600));
        let docker = plan.environment("docker").unwrap();
        let flags = ["--gpus", "all", "--ipc=host", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"];
        assert_eq!(&docker.flags[..flags.len()], flags);
        // The native side has the same limits.
        assert_eq!(plan.environment("native").unwrap().ulimits, ["memlock=-1", "stack=67108864"]);
        let optimised = Plan::parse(find("phase2-optimised").unwrap().text).unwrap();
        let measured = schedule(&optimised).iter().filter(|slot| !slot.warmup).count();
        assert_eq!((optimised.models, measured), (plan.models, 900));
    }

    /// What phase 1 left open is two questions, and each has both answers.
    #[test]
    fn the_replication_separates_the_suspects() {
        let plan = Plan::parse(find("phase1-replication").unwrap().text).unwrap();
        let containers = plan.environments.iter().filter(|environment| environment.kind.engine().is_some());
        let cells: std::collections::BTreeSet<_> = containers
            .map(|it| (it.values["caches"].as_str(), it.values["build"].starts_with("/tmp")))
            .collect();
        let all = [("dropped", false), ("dropped", true), ("kept", false), ("kept", true)];
        assert_eq!(cells, all.into());
        assert!(!plan.gates.drop_caches && plan.workload.command.join(" ").contains(" build \\\n"));
        for environment in &plan.environments {
            let (study, run) = (Path::new("/study"), Path::new("/study/run"));
            let places = RunPaths { study, run, workload: "", spark_trace: "spark-trace", fast_cpus: None };
            let values = Values::of(&plan, environment, &plan.models[0], 1, &places);
            let line = command::line(&plan, environment, &values).unwrap();
            let script = line.last().unwrap();
            let checked = std::process::Command::new("bash").args(["-n", "-c", script]).output();
            assert!(checked.is_ok_and(|output| output.status.success()), "{script}");
            assert_eq!(
                script.contains("--workspace /tmp/trtllm_workspace"),
                environment.values["build"].starts_with("/tmp")
            );
        }
    }
}
