//! What a study ran on and with, and the state that each run found.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use super::{application, facts, gates};
use crate::command::{RunPaths, Values};
use crate::plan::Plan;
use crate::results::{BOOT, MODIFIED};
use spark_trace_host::{engine, meminfo};

const GIB: f64 = (1_u64 << 30) as f64;
/// Of the state when a run begins, GiB each.
const FIELDS: [(&str, &str); 5] = [
    ("mem-free", "MemFree"),
    ("mem-available", "MemAvailable"),
    ("cached", "Cached"),
    ("dirty", "Dirty"),
    ("shmem", "Shmem"),
];

/// Facts that a reader needs to repeat the study. What cannot be found out is not there.
pub fn describe(plan: &Plan, spark_trace: &Path) -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let mut facts: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut fact = |name: &str, value: Option<String>| facts.insert(name.to_owned(), value);
    fact("kernel", read("/proc/sys/kernel/osrelease"));
    // drivers/char/random.c proc_do_uuid: another one after each start of the machine.
    fact(BOOT, read("/proc/sys/kernel/random/boot_id"));
    fact("architecture", Some(std::env::consts::ARCH.to_owned()));
    fact("cpus", std::thread::available_parallelism().ok().map(|cpus| cpus.to_string()));
    fact("memory", meminfo::read("MemTotal").map(|bytes| format!("{:.2} GiB", bytes as f64 / GIB)));
    fact("driver", read("/proc/driver/nvidia/version").map(first_line));
    fact("spark-trace", Some(env!("CARGO_PKG_VERSION").to_owned()));
    fact("spark-trace.path", Some(spark_trace.display().to_string()));
    for (name, value) in facts::of_machine(Path::new("/")).into_iter().chain(facts::of_gpus()) {
        fact(&name, Some(value));
    }
    fact("container-toolkit", facts::toolkit());
    match facts::put_into_containers() {
        Some(Ok(listed)) => fact("container-toolkit.list", Some(listed)),
        Some(Err(reason)) => fact("container-toolkit.list.unknown", Some(reason)),
        None => None,
    };
    let places = RunPaths {
        study: Path::new("."),
        run: Path::new("."),
        workload: "",
        spark_trace: "",
        fast_cpus: None,
    };
    for (environment, model) in plan.environments.iter().filter_map(|of| Some((of, plan.models.first()?))) {
        let values = Values::of(plan, environment, model, 0, &places);
        let filled = |text: &Option<String>| text.as_ref().and_then(|text| values.fill(text).ok());
        let (image, rootfs) = (filled(&environment.image), filled(&environment.rootfs));
        let name = format!("application.{}", environment.name);
        match application::of(environment, image.as_deref(), rootfs.as_deref()) {
            Some(Ok(version)) => fact(&name, Some(version)),
            Some(Err(reason)) => fact(&format!("{name}.unknown"), Some(reason)),
            None => None,
        };
    }
    for environment in &plan.environments {
        let Some(engine) = environment.kind.engine() else { continue };
        fact(engine, answer_of(&[engine, "--version"]));
        if let (Some(image), Some(model)) = (&environment.image, plan.models.first()) {
            let image = Values::of(plan, environment, model, 0, &places).fill(image).ok();
            let name = |what: &str| format!("image.{}{what}", environment.name);
            fact(&name(""), image.as_deref().and_then(|image| image_id(engine, image)));
            // What a registry calls it; an image that was made here has none.
            const DIGESTS: &str = "{{range .RepoDigests}}{{.}} {{end}}";
            let digests =
                image.and_then(|image| answer_of(&[engine, "image", "inspect", "--format", DIGESTS, &image]));
            fact(&name(".digest"), digests);
        }
    }
    for (environment, model) in
        plan.environments.iter().take(1).flat_map(|e| plan.models.iter().map(move |m| (e, m)))
    {
        let values = Values::of(plan, environment, model, 0, &places);
        let files = model.files.iter().filter_map(|file| values.fill(file).ok());
        for file in files {
            let name = format!("model.{}.{file}", model.name);
            match facts::of_file(Path::new(&file)) {
                Ok(found) => fact(&name, Some(found)),
                Err(reason) => fact(&format!("{name}.unknown"), Some(reason)),
            };
            match facts::modified(Path::new(&file)) {
                Ok(time) => fact(&format!("{name}{MODIFIED}"), Some(time)),
                Err(reason) => fact(&format!("{name}{MODIFIED}.unknown"), Some(reason)),
            };
            if let Some(revision) = facts::revision(&file) {
                fact(&format!("model.{}.revision", model.name), Some(revision));
            }
        }
    }
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What the engine calls an image that it has.
pub fn image_id(engine: &str, image: &str) -> Option<String> {
    answer_of(&[engine, "image", "inspect", "--format", "{{.Id}}", image])
}

fn answer_of(line: &[&str]) -> Option<String> {
    let (program, args) = line.split_first()?;
    let output =
        engine::reaching(program)?.args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// GiB each; degrees Celsius where there is a GPU.
pub fn state() -> BTreeMap<String, f64> {
    let fields = FIELDS
        .iter()
        .filter_map(|(name, field)| Some(((*name).to_owned(), meminfo::read(field)? as f64 / GIB)));
    let temperature = gates::temperature().map(|degrees| ("gpu-temperature".to_owned(), f64::from(degrees)));
    fields.chain(temperature).collect()
}

/// Bytes that unprivileged users could still write.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero byte and the place is ours.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded and filled it in.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail * stat.f_frsize)
}
