//! One inference, recorded natively and in a container, and what spark-trace says of the two.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::folder::{CUDA_WORKLOAD, SPARK_TRACE};
use super::machine::Machine;
use crate::bench::runs;
use crate::docker::{GPU_IMAGE, PrivateDocker};
use crate::{process, signals};

/// Where the packed folder is in the container.
const INSIDE: &str = "/gpu";

/// Of the host, and mounted into the container: programs, libraries, the driver among them.
const MOUNTED: &[&str] = &["/usr", "/opt", "/etc"];

/// What the driver opens besides the GPUs.
const DEVICES: &[&str] = &["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];

/// Makes them, and their reports. What fails is left out, and said at the end.
pub fn make(machine: &Machine) -> Result<()> {
    let mut session = Session { machine, commands: String::new(), markdown: String::new() };
    for line in &machine.about {
        // Writing to a String cannot fail.
        let _ = writeln!(session.commands, "# {line}");
    }
    let made = session.all();
    let mut written = session.write("commands.txt", &session.commands);
    if !session.markdown.is_empty() {
        written = written.and(session.write("llm-report.md", &session.markdown));
    }
    made.and(written)
}

/// Those that there are, and every GPU's own.
fn devices() -> Vec<PathBuf> {
    let names = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut devices: Vec<_> = names
        .filter(|name| name.to_str().is_some_and(is_device))
        .map(|name| Path::new("/dev").join(name))
        .collect();
    devices.sort();
    devices
}

fn is_device(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    let is_gpu = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_gpu || DEVICES.contains(&name)
}

struct Session<'a> {
    machine: &'a Machine<'a>,
    commands: String,
    markdown: String,
}

impl Session<'_> {
    fn all(&mut self) -> Result<()> {
        // Makes the file of weights: both recordings then only read it.
        let mut alone = Command::new(self.machine.folder.path(CUDA_WORKLOAD));
        self.run(alone.args(self.arguments()), "making the weights")?;
        let native = self.native();
        let Some(docker) = self.machine.docker else {
            println!("no container: no Docker");
            return native;
        };
        // One failing says nothing about the other.
        let container = self.container(docker);
        signals::check()?;
        native.and(container)?;
        self.report("llm-diff.txt", "diff", &["native", "docker"])
    }

    fn native(&mut self) -> Result<()> {
        let mut command = self.record("native");
        command.arg(self.machine.folder.path(CUDA_WORKLOAD)).args(self.arguments());
        self.run(&mut command, "recording the native run")?;
        self.report("llm-native.txt", "show", &["native"])
    }

    fn container(&mut self, docker: &PrivateDocker) -> Result<()> {
        let mut command = self.record("docker");
        command.envs(docker.environment()).args(["docker", "run", "--rm", "--network", "none"]);
        command.args(["--cap-drop", "SYS_RESOURCE"]);
        for device in devices() {
            command.arg("--device").arg(device);
        }
        for path in MOUNTED.iter().filter(|path| Path::new(path).is_dir()) {
            command.arg("-v").arg(format!("{path}:{path}:ro"));
        }
        command.arg("-v").arg(format!("{}:{INSIDE}:ro", self.machine.folder.0.display()));
        command.arg("-v").arg(format!("{0}:{0}:ro", self.model().display()));
        command.arg(GPU_IMAGE).arg(format!("{INSIDE}/{CUDA_WORKLOAD}")).args(self.arguments());
        self.run(&mut command, "recording the container")?;
        self.report("llm-docker.txt", "show", &["docker"])
    }

    /// Where the weights are, on the host and in the container.
    fn model(&self) -> PathBuf {
        self.machine.scratch.join("model")
    }

    /// The same for both: the weights are read from the disk, whoever had them in the page cache.
    fn arguments(&self) -> Vec<String> {
        let mut words = ["llm", "--model-dir"].map(str::to_owned).to_vec();
        words.push(self.model().display().to_string());
        words.extend(runs::arguments(self.machine.cuda).iter().map(|&word| word.to_owned()));
        words.extend(["--cold", "--driver", &self.machine.cuda.driver].map(str::to_owned));
        words
    }

    fn recording(&self, which: &str) -> PathBuf {
        self.machine.output.join(format!("llm-{which}.json.zst"))
    }

    fn record(&self, which: &str) -> Command {
        let mut command = Command::new(self.machine.folder.path(SPARK_TRACE));
        command.args(["record", "--quiet", "--force", "--as-root", "--output"]);
        command.arg(self.recording(which)).arg("--");
        command
    }

    /// Writes what `subcommand` says to `file`, and keeps it as Markdown.
    fn report(&mut self, file: &str, subcommand: &str, which: &[&str]) -> Result<()> {
        let recordings: Vec<_> = which.iter().map(|which| self.recording(which)).collect();
        let command = |format| {
            let mut command = Command::new(self.machine.folder.path(SPARK_TRACE));
            command.arg(subcommand).args(&recordings).args(["--format", format]);
            // Its first screen leaves out the machine, which these results are about.
            command.args((subcommand == "show").then_some("--all"));
            command
        };
        let (mut table, mut markdown) = (command("table"), command("markdown"));
        let text = self.run(&mut table, subcommand)?;
        self.write(file, &text)?;
        let text = self.run(&mut markdown, subcommand)?;
        self.markdown.push_str(&text);
        self.markdown.push('\n');
        Ok(())
    }

    /// Runs a command, and notes it; gives what it printed.
    fn run(&mut self, command: &mut Command, purpose: &str) -> Result<String> {
        let line = process::command_line(command);
        eprintln!("$ {line}");
        self.commands.push_str(&line);
        self.commands.push('\n');
        process::output(command, purpose)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.machine.output.join(name);
        let label =
            if self.machine.is_simulated() { "Simulated: no GPU, a simulated CUDA driver.\n\n" } else { "" };
        fs::write(&path, format!("{label}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_device;

    #[test]
    fn devices_of_the_driver() {
        for name in ["nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"] {
            assert!(is_device(name), "{name}");
        }
        for name in ["nvidia", "nvidia-caps", "nvidia-modeset", "null", "0"] {
            assert!(!is_device(name), "{name}");
        }
    }
}
