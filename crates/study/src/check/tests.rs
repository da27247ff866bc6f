//! A machine in a folder: twenty cores of two types, images by name, models as files.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::cores;
use crate::rootfs::Rootfs;
use crate::schedule::schedule;
use crate::templates::{TEMPLATES, find};

const MIB: u64 = 1 << 20;

struct Fake {
    dir: tempfile::TempDir,
    /// Images that the engines have, with their architecture.
    images: BTreeMap<String, &'static str>,
    gpus: usize,
    /// Limits above those that a command has anyway.
    raises: Option<bool>,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap(), images: BTreeMap::new(), gpus: 1, raises: None };
        cores::tests::spark(fake.dir.path());
        fake.write("proc/meminfo", "MemTotal: 125524480 kB\nMemFree: 120000000 kB\n");
        fake.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        fake.write("usr/bin/sh", "");
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file of so many bytes that takes no space.
    fn sparse(&self, path: &str, bytes: u64) {
        self.write(path, "");
        fs::File::options().write(true).open(self.file(path)).unwrap().set_len(bytes).unwrap();
    }

    fn image(&mut self, name: &str) {
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        self.images.insert(name.to_owned(), own);
    }

    /// All that a template names: images, mounts, models, and the trees of its chroots.
    fn prepare(&mut self, plan: &Plan) {
        let options = self.options();
        let values = |environment: &Environment, model: &Model| {
            options.values(plan, environment, model, 1, Path::new("/run"))
        };
        let Some(first) = plan.models.first() else { return };
        for environment in &plan.environments {
            let of = values(environment, first);
            if let Some(image) = &environment.image {
                self.image(&of.fill(image).unwrap());
            }
            let flags: Vec<String> = environment.flags.iter().map(|flag| of.fill(flag).unwrap()).collect();
            let sources =
                containers::values_of(&flags, &["-v"]).chain(environment.mounts.iter().map(String::as_str));
            for source in sources.map(|mount| of.fill(mount).unwrap()) {
                let source = self.file(source.split(':').next().unwrap());
                if !source.exists() {
                    fs::create_dir_all(source).unwrap();
                }
            }
            if let Some(rootfs) = &environment.rootfs {
                let dir = of.fill(rootfs).unwrap();
                let made = Rootfs { id: "sha256:1".to_owned(), image: "i".to_owned(), ..Rootfs::default() };
                self.write(&format!("{dir}/rootfs.json"), &serde_json::to_string(&made).unwrap());
                for program in &plan.workload.command[..1] {
                    self.write(&format!("{dir}/tree/usr/bin/{}", of.fill(program).unwrap()), "");
                }
            }
        }
        for file in ["proc/self", "sys/kernel", "dev/null"] {
            self.write(file, "");
        }
        for (environment, model) in
            plan.environments.iter().take(1).flat_map(|e| plan.models.iter().map(move |m| (e, m)))
        {
            for file in &model.files {
                self.sparse(
                    &format!("{}/weights", values(environment, model).fill(file).unwrap()),
                    1000 * MIB,
                );
            }
        }
    }

    fn options(&self) -> Options {
        Options {
            dir: self.dir.path().join("study"),
            spark_trace: "/usr/bin/spark-trace".into(),
            workload: Some("/usr/bin/workload".into()),
            cores: cores::read(self.dir.path()),
        }
    }

    fn check(&self, plan: &Plan) -> Report {
        self.check_after(plan, &[])
    }

    fn check_after(&self, plan: &Plan, done: &[Run]) -> Report {
        let (options, left) = (self.options(), schedule(plan));
        check(&Subject { plan, options: &options, machine: self, left: &left, done })
    }
}

impl Machine for Fake {
    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn engine(&self, engine: &str, args: &[&str]) -> Result<String, String> {
        match args {
            ["--version"] => Ok(format!("{engine} version 28.0")),
            ["image", "inspect", "--format", _, image] => {
                let architecture =
                    self.images.get(*image).ok_or_else(|| format!("No such image: {image}"))?;
                Ok(format!("sha256:1 {architecture}"))
            }
            ["info", "--format", "{{.CgroupDriver}}"] => Ok("systemd".to_owned()),
            other => Err(format!("{other:?}")),
        }
    }

    fn gpus(&self) -> Result<usize, String> {
        Ok(self.gpus)
    }

    fn limit(&self, _: u32) -> Option<(u64, u64)> {
        Some((8 << 20, 8 << 20))
    }

    fn may_raise_limits(&self) -> Option<bool> {
        self.raises
    }

    fn closed(&self, _: &Plan) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn free_space(&self, _: &Path) -> std::io::Result<u64> {
        Ok(100 << 30)
    }

    fn path(&self) -> Vec<PathBuf> {
        vec![self.file("/usr/bin")]
    }
}

fn template(name: &str) -> Plan {
    Plan::parse(find(name).unwrap().text).unwrap()
}

/// A plan of two environments, with `more` at its end.
fn plan(flags: &str, native: &str, more: &str) -> Plan {
    let text = format!(
        "name = \"p\"\nruns = 2\ntimeout = \"1h\"\n[[environments]]\nname = \"native\"\nkind = \"native\"\n{native}\n\
         [[environments]]\nname = \"docker\"\nkind = \"docker\"\nimage = \"i\"\nflags = [{flags}]\n\
         [workload]\ncommand = [\"sh\", \"-c\", \"true\"]\n{more}\n"
    );
    Plan::parse(&text).unwrap()
}

const MODEL: &str = "[[models]]\nname = \"m\"\n";

fn fatal(report: &Report) -> Vec<String> {
    let fatal = report.findings.iter().filter(|finding| finding.severity == Severity::Fatal);
    fatal.map(|finding| format!("{}: {}: {}", finding.check, finding.subject, finding.found)).collect()
}

fn found<'a>(report: &'a Report, check: &str, words: &str) -> &'a Finding {
    let of_check = report.findings.iter().filter(|finding| finding.check == check);
    let mut matching = of_check.filter(|finding| finding.found.contains(words));
    matching.next().unwrap_or_else(|| panic!("no `{words}` of {check} in {:#?}", report.findings))
}

#[test]
fn every_template_runs_on_a_spark_that_has_all_it_names_and_says_how_long() {
    for template in TEMPLATES {
        let plan = Plan::parse(template.text).unwrap();
        let mut fake = Fake::new();
        fake.write("usr/bin/workload", "");
        fake.prepare(&plan);
        let report = fake.check(&plan);
        assert!(report.can_run, "{}: {:#?}", template.name, fatal(&report));
        assert_eq!(report.times.len(), plan.models.len(), "{}", template.name);
        for time in &report.times {
            let run =
                time.run_s.unwrap_or_else(|| panic!("{}: {}: {}", template.name, time.model, time.basis));
            assert!(run > 0.0 && run < time.timeout_s, "{}: {time:?}", template.name);
        }
        assert!(report.hours.is_some_and(|hours| hours > 0.0), "{}", template.name);
        let warned: Vec<_> = report.findings.iter().filter(|it| it.severity == Severity::Warning).collect();
        assert!(warned.is_empty(), "{}: {warned:#?}", template.name);
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let fake = Fake::new();
    let report = fake.check(&template("phase2-baseline"));
    assert!(!report.can_run);
    for (check, words, next) in [
        ("images", "has no image nvcr.io/nvidia/tensorrt-llm", "docker pull nvcr.io"),
        ("files", "No such file", "download the model"),
        ("rootfs", "", "sudo spark-trace study rootfs nvcr.io"),
        ("mounts", "/data/models/huggingface is not there", "mkdir -p"),
        ("mounts", "libcuda.so.1 is not there", "install what libcuda.so.1 is of"),
    ] {
        let next_of = found(&report, check, words).next.clone().unwrap_or_default();
        assert!(next_of.contains(next), "{check}: {next_of}");
    }
}

#[test]
fn a_gpu_that_a_gate_needs_must_be_there() {
    let mut fake = Fake::new();
    fake.image("i");
    fake.gpus = 0;
    let plan = plan("", "", &format!("[gates]\ngpu-idle = true\n{MODEL}"));
    assert_eq!(found(&fake.check(&plan), "gpu", "no GPU").severity, Severity::Fatal);
}

#[test]
fn an_image_of_another_architecture_is_no_image() {
    let mut fake = Fake::new();
    fake.images.insert("i".to_owned(), "riscv64");
    let report = fake.check(&plan("", "", MODEL));
    assert_eq!(found(&report, "images", "is for riscv64").severity, Severity::Fatal);
}

#[test]
fn limits_that_differ_are_a_difference_of_the_environments() {
    let mut fake = Fake::new();
    fake.image("i");
    let flags = "\"--ulimit\", \"stack=67108864\"";
    let finding = |native: &str| {
        let report = fake.check(&plan(flags, native, MODEL));
        report.findings.into_iter().find(|finding| finding.check == "limits").unwrap()
    };
    let differs = finding("");
    assert_eq!(differs.severity, Severity::Warning);
    assert!(differs.found.contains("native 8388608, inherited, docker 67108864"), "{}", differs.found);
    assert!(differs.next.unwrap().contains("ulimits = [\"stack=67108864\"]"));
    assert_eq!(finding("ulimits = [\"stack=67108864\"]").severity, Severity::Fine);
    assert_eq!(finding("ulimits = [\"stack=67108863\"]").severity, Severity::Warning);
}

#[test]
fn limits_that_root_may_not_raise_are_known_before() {
    let mut fake = Fake::new();
    fake.image("i");
    let plan =
        |limit: &str| plan("\"--ulimit\", \"stack=67108864\"", &format!("ulimits = [\"{limit}\"]"), MODEL);
    for (raises, limit, refused) in [
        (Some(false), "stack=67108864", true),
        (Some(false), "stack=4096", false),
        (Some(true), "stack=67108864", false),
        (None, "stack=67108864", false),
    ] {
        fake.raises = raises;
        let report = fake.check(&plan(limit));
        let fatal = report.findings.iter().any(|it| it.check == "limits" && it.severity == Severity::Fatal);
        assert_eq!(fatal, refused, "{raises:?} {limit}");
    }
}

#[test]
fn a_list_of_cpus_is_of_one_type_and_of_this_machine() {
    let mut fake = Fake::new();
    fake.image("i");
    for (list, severity, words) in [
        ("{cpus.fast}", Severity::Fine, "5-9,15-19: Cortex-X925"),
        ("0-9", Severity::Warning, "mixes types of cores: Cortex-X925 (5-9,15-19) and Cortex-A725"),
        ("0-31", Severity::Fatal, "CPUs 20, 21"),
        ("fast", Severity::Fatal, "no list of CPUs"),
    ] {
        let report = fake.check(&plan(&format!("\"--cpuset-cpus={list}\""), "", MODEL));
        assert_eq!(found(&report, "cores", words).severity, severity, "{list}");
    }
}

#[test]
fn a_slice_is_what_systemd_takes_for_a_parent() {
    let mut fake = Fake::new();
    fake.image("i");
    let severity = |parent: &str| {
        let report = fake.check(&plan(&format!("\"--cgroup-parent={parent}\""), "", MODEL));
        found(&report, "cgroup", "parent").severity
    };
    assert_eq!((severity("/"), severity("system.slice")), (Severity::Fatal, Severity::Fine));
}

#[test]
fn the_time_of_a_run_is_estimated_or_measured_and_must_fit_its_timeout() {
    let mut fake = Fake::new();
    fake.image("i");
    let estimate = |weights: &str| {
        format!(
            "[estimate]\nstart = \"100s\"\n[estimate.decoding]\nrequests = \"1000\"\noutput-tokens = \"128\"\nbatch = \"8\"\n\
             weights = \"{weights}\"\nbandwidth = \"200G\"\n{MODEL}"
        )
    };
    // 125 x 128 passes of 10 GiB at 200 GiB/s are 800 s.
    let report = fake.check(&plan("", "", &estimate("10G")));
    assert_eq!(report.times[0].run_s, Some(900.0));
    assert!(report.times[0].basis.contains("16000 passes"), "{}", report.times[0].basis);
    // Two runs in each of two environments.
    assert_eq!(report.hours, Some(1.0));
    // 50 GiB take 4000 s, and the timeout is an hour.
    let late = fake.check(&plan("", "", &estimate("50G")));
    let finding = found(&late, "time", "a run takes about");
    assert_eq!(
        (finding.severity, finding.next.as_deref()),
        (Severity::Fatal, Some("write `timeout = \"2h\"` for the model"))
    );
    assert_eq!(
        found(&fake.check(&plan("", "", &estimate("35G"))), "time", "times the estimate").severity,
        Severity::Warning
    );

    let unknown = fake.check(&plan("", "", MODEL));
    assert_eq!((unknown.hours, unknown.times[0].run_s), (None, None));
    assert!(unknown.can_run);

    let run = |environment: &str, took: f64| Run {
        model: "m".to_owned(),
        environment: environment.to_owned(),
        started_s: Some(1000.0),
        ended_s: Some(1000.0 + took),
        ..Run::default()
    };
    let done = [run("native", 30.0), run("native", 50.0), run("docker", 60.0)];
    let measured = fake.check_after(&plan("", "", &estimate("50G")), &done);
    assert_eq!((measured.times[0].run_s, measured.times[0].all_s), (Some(60.0), Some(200.0)));
    assert_eq!(measured.times[0].basis, "measured: mean of 1 run in docker");
}

#[test]
fn a_checkpoint_that_the_backend_does_not_load_is_named() {
    let mut fake = Fake::new();
    fake.image("i");
    let text = "name = \"p\"\nruns = 2\n[[environments]]\nname = \"native\"\nkind = \"native\"\n[[models]]\nname = \"m\"\n\
                files = [\"/models/m\"]\n[workload]\ncommand = [\"trtllm-bench\", \"--backend\", \"pytorch\"]\n";
    let plan = Plan::parse(text).unwrap();
    fake.write(
        "models/m/config.json",
        r#"{"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}"#,
    );
    assert_eq!(found(&fake.check(&plan), "models", "AutoAWQ").severity, Severity::Warning);
    fake.write("models/m/config.json", r#"{"architectures": ["LlamaForCausalLM"]}"#);
    assert!(!fake.check(&plan).findings.iter().any(|finding| finding.check == "models"));
    fake.write("models/m/config.json", "[");
    assert_eq!(found(&fake.check(&plan), "models", "no description").severity, Severity::Warning);
}

#[test]
fn a_dataset_is_there_or_can_be_made() {
    let mut fake = Fake::new();
    fake.image("i");
    let more = format!(
        "[dataset]\nfile = \"/workspace/{{model}}.jsonl\"\nenvironment = \"docker\"\nways = [{{ command = [\"make\"] }}]\n{MODEL}"
    );
    let plan = plan("", "", &more);
    assert_eq!(found(&fake.check(&plan), "dataset", "No such").severity, Severity::Fatal);
    fs::create_dir(fake.file("/workspace")).unwrap();
    assert_eq!(found(&fake.check(&plan), "dataset", "will be made").severity, Severity::Fine);
    fake.write("workspace/m.jsonl", "");
    assert_eq!(found(&fake.check(&plan), "dataset", "no file with requests").severity, Severity::Fatal);
    fake.write("workspace/m.jsonl", "{}");
    assert_eq!(found(&fake.check(&plan), "dataset", "is there").severity, Severity::Fine);
}
