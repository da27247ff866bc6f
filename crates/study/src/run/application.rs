//! Which version of an inference engine an environment has, by its packages.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use spark_trace_host::engine;

use crate::plan::{Environment, Kind};

/// Names of Python packages.
const PACKAGES: &[&str] = &["tensorrt_llm", "vllm", "sglang", "llama_cpp_python"];
/// Prints a line for each that the image's Python has.
const ASK: &str = "import importlib.metadata as m, sys
for n in sys.argv[1:]:
    try: print(n, m.version(n))
    except m.PackageNotFoundError: pass";
/// Large images take seconds to start.
const LONGEST: Duration = Duration::from_secs(120);
/// Nobody writes so much of four packages.
const MOST: u64 = 4096;
/// Folders of a tree in which Python's packages are.
const FOLDERS: &[&str] = &["usr/lib", "usr/local/lib", "opt/venv/lib"];

/// Names and versions; why they are unknown, where they are. Nothing of an environment that runs what this machine has: its log says it.
pub fn of(
    environment: &Environment,
    image: Option<&str>,
    rootfs: Option<&str>,
) -> Option<Result<String, String>> {
    // What is made of one static program has no packages.
    if environment.import_program.is_some() {
        return None;
    }
    match (environment.kind, image, rootfs) {
        (Kind::Docker | Kind::Podman, Some(image), _) => Some(of_image(environment.kind.engine()?, image)),
        (Kind::Chroot, _, Some(tree)) => Some(of_tree(Path::new(tree))),
        _ => None,
    }
}

fn of_image(engine: &str, image: &str) -> Result<String, String> {
    let mut command = engine::reaching(engine).ok_or_else(|| format!("{engine} does not answer"))?;
    // Nothing of the image but its Python runs, and that reaches nothing. An image that is not here is not fetched.
    command.args(["run", "--rm", "--pull", "never", "--network", "none", "--read-only"]);
    command.args(["--entrypoint", "python3", image, "-c", ASK]).args(PACKAGES);
    found(&answer(command)?)
}

/// What it prints, if it does so in time.
fn answer(mut command: Command) -> Result<String, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    // Each has an end of its own: a pipe that nobody reads would hold the other one up.
    let said = first_of(child.stdout.take());
    let wrong = first_of(child.stderr.take());
    let Ok(said) = said.recv_timeout(LONGEST) else {
        end(&mut child);
        return Err(format!("it did not answer within {} s", LONGEST.as_secs()));
    };
    let wrong = wrong.recv_timeout(LONGEST).unwrap_or_default();
    match child.wait() {
        Ok(status) if status.success() => Ok(said),
        Ok(status) => Err(wrong.lines().last().map_or_else(|| status.to_string(), str::to_owned)),
        Err(error) => Err(error.to_string()),
    }
}

/// The first of what comes out of a pipe, which is closed then.
fn first_of(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = vec![];
        if let Some(pipe) = pipe {
            // What came before an error counts.
            let _ = pipe.take(MOST).read_to_end(&mut text);
        }
        // Nobody may wait for it any more.
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

fn end(child: &mut Child) {
    // It may have ended just now.
    let _ = child.kill();
    let _ = child.wait();
}

/// Lines of a name and a version; what an image prints besides is none.
fn found(text: &str) -> Result<String, String> {
    let is_version = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._+-!".contains(c));
    let known = text.lines().filter_map(|line| {
        let (name, version) = line.trim().split_once(' ')?;
        (PACKAGES.contains(&name) && is_version(version)).then(|| format!("{name} {version}"))
    });
    let known: Vec<String> = known.collect();
    match known.is_empty() {
        true => Err(format!("its Python has none of {}", PACKAGES.join(", "))),
        false => Ok(known.join(", ")),
    }
}

/// By the folders in which packages are described: `vllm-0.11.0.dist-info` (PEP 376). Nothing of the tree runs.
fn of_tree(root: &Path) -> Result<String, String> {
    if !root.is_dir() {
        return Err("its tree is not there".to_owned());
    }
    let mut lines = vec![];
    for folder in FOLDERS {
        let pythons = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let pythons = pythons.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
        for kind in
            pythons.flat_map(|python| ["site-packages", "dist-packages"].map(|kind| python.path().join(kind)))
        {
            for entry in fs::read_dir(kind).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let described = name.strip_suffix(".dist-info").and_then(|name| name.split_once('-'));
                lines.extend(described.map(|(name, version)| format!("{name} {version}")));
            }
        }
    }
    lines.sort();
    lines.dedup();
    found(&lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_the_versions_that_its_packages_are_described_with() {
        let root = tempfile::tempdir().unwrap();
        let packages = root.path().join("usr/local/lib/python3.12/dist-packages");
        assert_eq!(
            of_tree(root.path()).unwrap_err(),
            "its Python has none of tensorrt_llm, vllm, sglang, llama_cpp_python"
        );
        for name in ["tensorrt_llm-1.1.0rc3.dist-info", "numpy-2.1.0.dist-info", "vllm"] {
            fs::create_dir_all(packages.join(name)).unwrap();
        }
        assert_eq!(of_tree(root.path()).as_deref(), Ok("tensorrt_llm 1.1.0rc3"));
        assert!(of_tree(&root.path().join("none")).is_err());
    }

    #[test]
    fn what_an_image_prints_besides_is_no_version() {
        let text =
            "==========\nNVIDIA TensorRT-LLM\ntensorrt_llm 1.1.0rc3\nvllm <script>\nvllm 0.11.0+cu130\n";
        assert_eq!(found(text).as_deref(), Ok("tensorrt_llm 1.1.0rc3, vllm 0.11.0+cu130"));
    }

    #[test]
    fn what_fails_says_why() {
        let shell = |line: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            answer(command)
        };
        assert_eq!(shell("echo vllm 1.0").as_deref(), Ok("vllm 1.0\n"));
        assert_eq!(shell("echo no python3 >&2; exit 127").unwrap_err(), "no python3");
        // What never ends, ends when it is no longer read.
        assert!(shell("exec yes").is_err());
    }
}
