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
        name: "phase2-docker-options",
        about: "Docker's options one by one and combined, three models, 10 runs each",
        text: include_str!("templates/phase2-docker-options.toml"),
    },
    Template {
        name: "phase2-exploratory",
        about: "Ways to pass the GPU, ipc, cgroup and engine, one model, 10 runs each",
        text: include_str!("templates/phase2-exploratory.toml"),
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

    #[test]
    fn the_demos_image_has_the_workload_under_its_own_name() {
        let plan = Plan::parse(find("demo").unwrap().text).unwrap();
        let docker = plan.environment("docker").unwrap();
        let (study, run) = (Path::new("/study"), Path::new("/study/run"));
        let places = RunPaths { study, run, workload: "/opt/another-name", spark_trace: "spark-trace" };
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
    }
}
