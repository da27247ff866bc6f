//! Programs, files and mounts: whether each environment sees what its command names.

use std::fs;
use std::path::Path;

use spark_trace_host::meminfo;
use spark_trace_recording::units;

use super::{Findings, Subject, containers};
use crate::command;
use crate::plan::{Environment, Kind};
use crate::rootfs;

/// What a chroot needs for programs that look at their processes and their GPU, and a file in each.
const KERNEL_MOUNTS: &[(&str, &str)] = &[("/proc", "self"), ("/sys", "kernel"), ("/dev", "null")];

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    source: String,
    target: String,
}

fn pair(text: &str) -> Option<Mount> {
    let mut parts = text.split(':');
    let (source, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    (source.starts_with('/') && target.starts_with('/')).then_some(Mount { source, target })
}

/// `type=bind,source=/a,target=/b`: the long form of the same.
fn long(text: &str) -> Option<Mount> {
    let value = |names: &[&str]| {
        let mut pairs = text.split(',').filter_map(|part| part.split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| value.to_owned())
    };
    if value(&["type"])? != "bind" {
        return None;
    }
    Some(Mount { source: value(&["source", "src"])?, target: value(&["target", "destination", "dst"])? })
}

/// Bind mounts of an environment; volumes with a name are the engine's.
fn mounts_of(subject: &Subject<'_>, environment: &Environment) -> Vec<Mount> {
    if environment.kind.engine().is_some() {
        let flags = subject.flags(environment);
        let short = containers::values_of(&flags, &["-v", "--volume"]).filter_map(pair);
        return short.chain(containers::values_of(&flags, &["--mount"]).filter_map(long)).collect();
    }
    let Some(values) = subject.values_of(environment) else { return vec![] };
    environment.mounts.iter().filter_map(|text| pair(&values.fill(text).ok()?)).collect()
}

fn covers(dir: &str, path: &str) -> bool {
    Path::new(path).starts_with(dir)
}

/// Whether an environment without an engine has something at a path. A link of the tree is not followed: it may point
/// outside.
fn is_visible(subject: &Subject<'_>, environment: &Environment, path: &str) -> bool {
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    if environment.kind == Kind::Native {
        return exists(&subject.machine.file(path));
    }
    if let Some(mount) = mounts_of(subject, environment).into_iter().find(|mount| covers(&mount.target, path))
    {
        let below = path[mount.target.len()..].trim_start_matches('/');
        return exists(&subject.machine.file(&mount.source).join(below));
    }
    tree(subject, environment).is_some_and(|tree| exists(&tree.join(path.trim_start_matches('/'))))
}

fn tree(subject: &Subject<'_>, environment: &Environment) -> Option<std::path::PathBuf> {
    let dir = subject.values_of(environment)?.fill(environment.rootfs.as_deref()?).ok()?;
    let dir = subject.machine.file(&dir);
    Some(rootfs::tree(&dir, &rootfs::read(&dir).ok()?))
}

pub fn programs(subject: &Subject<'_>, findings: &mut Findings) {
    for environment in &subject.plan.environments {
        let Some(values) = subject.values_of(environment) else { continue };
        let Some(Ok(program)) =
            command::template(subject.plan, environment).first().map(|word| values.fill(word))
        else {
            continue;
        };
        let found = match environment.kind {
            Kind::Docker | Kind::Podman => continue,
            Kind::Native if program.contains('/') => subject.machine.file(&program).exists(),
            Kind::Native => subject.machine.path().iter().any(|dir| dir.join(&program).exists()),
            Kind::Chroot => {
                let Some(dir) = values.fill(environment.rootfs.as_deref().unwrap_or_default()).ok() else {
                    continue;
                };
                // Without its notes the tree is a finding of `rootfs`.
                let Ok(made) = rootfs::read(&subject.machine.file(&dir)) else { continue };
                // The image's entrypoint takes the command as its arguments.
                let program = made.entrypoint.first().unwrap_or(&program);
                let path = made.environment.get("PATH").map_or("/usr/bin:/bin", String::as_str);
                let mut places = match program.contains('/') {
                    true => vec![program.clone()],
                    false => path.split(':').map(|dir| format!("{dir}/{program}")).collect(),
                };
                places.retain(|place| is_visible(subject, environment, place));
                !places.is_empty()
            }
        };
        match found {
            true => findings.fine(&environment.name, format!("{program} is there")),
            false => findings.fatal(
                &environment.name,
                format!("there is no program {program}"),
                "install it, or write its path into the plan",
            ),
        }
    }
}

/// Bytes of a file, or of the files in a folder and the folders below it.
fn size(path: &Path, depth: u32) -> std::io::Result<u64> {
    let about = fs::metadata(path)?;
    if !about.is_dir() {
        return Ok(about.len());
    }
    if depth == 0 {
        return Ok(0);
    }
    fs::read_dir(path)?.flatten().map(|entry| size(&entry.path(), depth - 1)).sum()
}

pub fn files(subject: &Subject<'_>, findings: &mut Findings) {
    const DEPTH: u32 = 4;
    let memory = fs::read_to_string(subject.machine.file("/proc/meminfo"));
    let memory = memory.ok().and_then(|text| meminfo::field(&text, "MemTotal"));
    for model in &subject.plan.models {
        let Some(environment) = subject.plan.environments.first() else { continue };
        let values = subject.values(environment, model);
        let paths: Vec<String> = model.files.iter().filter_map(|file| values.fill(file).ok()).collect();
        let (mut bytes, mut missing) = (0_u64, false);
        for path in &paths {
            match size(&subject.machine.file(path), DEPTH) {
                Ok(size) => bytes = bytes.saturating_add(size),
                Err(error) => {
                    missing = true;
                    let next = "download the model, or leave it out of the plan";
                    findings.fatal(&model.name, format!("{path}: {error}"), next);
                }
            }
            for container in subject.plan.environments.iter().filter(|it| it.kind.engine().is_some()) {
                if !mounts_of(subject, container).iter().any(|mount| covers(&mount.source, path)) {
                    findings.fatal(
                        &format!("{} in {}", model.name, container.name),
                        format!("no mount of the container has {path}"),
                        "add \"-v\", \"SOURCE:TARGET:ro\" to its flags",
                    );
                }
            }
        }
        if paths.is_empty() || missing {
            continue;
        }
        let said = format!("{} of files", units::unsigned(bytes));
        match memory.filter(|&memory| bytes > memory) {
            Some(memory) => findings.warning(
                &model.name,
                format!("{said}, and the machine has {} of memory", units::unsigned(memory)),
                "use a quantised checkpoint, unless the GPU has memory of its own",
            ),
            None => findings.fine(&model.name, said),
        }
    }
}

pub fn mounts(subject: &Subject<'_>, findings: &mut Findings) {
    let plan = subject.plan;
    for environment in &plan.environments {
        let mounts = mounts_of(subject, environment);
        // The study's own folder is made before its first run.
        let made = |mount: &&Mount| Path::new(&mount.source).starts_with(&subject.options.dir);
        let there = |mount: &&Mount| made(mount) || subject.machine.file(&mount.source).exists();
        let missing: Vec<_> = mounts.iter().filter(|mount| !there(mount)).collect();
        for mount in &missing {
            // Docker makes an empty directory for a source that is missing, and the run begins.
            findings.fatal(
                &environment.name,
                format!("{} is not there and cannot be mounted", mount.source),
                format!("{}, or correct the plan", making(&mount.source)),
            );
        }
        if !mounts.is_empty() && missing.is_empty() {
            let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_str()).collect();
            findings.fine(&environment.name, format!("mounts at {}", targets.join(", ")));
        }
    }
    let targets = plan.environments.iter().filter(|it| it.kind.engine().is_some());
    let mut targets: Vec<String> =
        targets.flat_map(|it| mounts_of(subject, it)).map(|mount| mount.target).collect();
    targets.sort();
    targets.dedup();
    for environment in plan.environments.iter().filter(|it| it.kind.engine().is_none()) {
        let Some(values) = subject.values_of(environment) else { continue };
        let words = command::line(plan, environment, &values).unwrap_or_default();
        let used = targets.iter().filter(|target| words.iter().any(|word| word.contains(target.as_str())));
        for target in used.filter(|target| !is_visible(subject, environment, target)) {
            let next = match environment.kind {
                Kind::Chroot => format!("write `mounts = [\"SOURCE:{target}\"]` for {}", environment.name),
                _ => format!("make {target} on this machine"),
            };
            let found = format!("its command uses {target}, which only the containers have");
            findings.fatal(&environment.name, found, next);
        }
        if environment.kind != Kind::Chroot || tree(subject, environment).is_none() {
            continue;
        }
        for (target, file) in KERNEL_MOUNTS {
            if !is_visible(subject, environment, &format!("{target}/{file}")) {
                findings.fatal(
                    &environment.name,
                    format!("{target} is not mounted in its tree"),
                    format!("write `mounts = [\"{target}:{target}\"]` for {}", environment.name),
                );
            }
        }
    }
}

pub fn dataset(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(dataset) = &subject.plan.dataset else { return };
    let Some(environment) = subject.plan.environment(&dataset.environment) else { return };
    for model in &subject.plan.models {
        let Ok(file) = subject.values(environment, model).fill(&dataset.file) else { continue };
        let path = subject.machine.file(&file);
        match fs::metadata(&path) {
            Ok(about) if about.is_file() && about.len() > 0 => {
                let said = format!("{file} is there ({})", units::unsigned(about.len()));
                findings.fine(&model.name, said);
            }
            Ok(_) => findings.fatal(
                &model.name,
                format!("{file} is no file with requests in it"),
                format!("remove {file}; it is made before the first run"),
            ),
            Err(_) if path.parent().is_some_and(Path::is_dir) => {
                findings.fine(&model.name, format!("{file} will be made in {}", environment.name));
            }
            Err(error) => {
                let folder = Path::new(&file).parent().unwrap_or(Path::new("/")).display().to_string();
                findings.fatal(&model.name, format!("{file}: {error}"), format!("mkdir -p {folder}"));
            }
        }
    }
}

/// How a source of a mount comes to be. Nobody makes a library: in the place of a driver's a folder would do harm.
fn making(source: &str) -> String {
    let name = Path::new(source).file_name().unwrap_or_default().to_string_lossy();
    if name.contains(".so") { format!("install what {name} is of") } else { format!("mkdir -p {source}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_in_both_forms() {
        let mount = |source: &str, target: &str| Some(Mount { source: source.into(), target: target.into() });
        assert_eq!(pair("/a:/b:ro"), mount("/a", "/b"));
        assert_eq!(pair("name:/b"), None);
        assert_eq!(long("type=bind,src=/a,dst=/b,readonly"), mount("/a", "/b"));
        assert_eq!(long("type=tmpfs,target=/b"), None);
        assert!(covers("/data", "/data/models") && !covers("/data", "/database"));
    }
}
