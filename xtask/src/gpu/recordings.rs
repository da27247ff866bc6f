//! One inference, recorded natively and in a container, and what spark-trace says of the two.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::folder::{CUDA_WORKLOAD, SPARK_TRACE};
use super::run::Machine;
use crate::bench::runs;
use crate::docker::GPU_IMAGE;
use crate::process;

/// Where the packed folder is in the container.
const INSIDE: &str = "/gpu";

/// Of the host, and mounted into the container: programs, libraries, the driver among them.
const MOUNTED: &[&str] = &["/usr", "/opt", "/etc"];

/// What the driver opens; passed on where they are.
const DEVICES: &[&str] = &["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];

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

struct Session<'a> {
    machine: &'a Machine<'a>,
    commands: String,
    markdown: String,
}

impl Session<'_> {
    fn all(&mut self) -> Result<()> {
        let Machine { folder, docker, .. } = *self.machine;
        let model = self.machine.scratch.join("model");
        let workload = folder.path(CUDA_WORKLOAD);
        // Makes the file of weights: both recordings then only read it.
        self.run(Command::new(&workload).args(self.arguments(&model)), "making the weights")?;

        let mut native = self.record("native")?;
        native.arg(&workload).args(self.arguments(&model));
        self.run(&mut native, "recording the native run")?;
        self.show("native")?;

        let Some(docker) = docker else {
            println!("no container: no Docker");
            return Ok(());
        };
        let mut container = self.record("docker")?;
        container.envs(docker.environment()).args(["docker", "run", "--rm", "--network", "none"]);
        container.args(["--cap-drop", "SYS_RESOURCE"]);
        for device in DEVICES.iter().filter(|device| Path::new(device).exists()) {
            container.args(["--device", device]);
        }
        let own = |path: &&&str| Path::new(path).is_dir();
        for path in MOUNTED.iter().filter(own) {
            container.arg("-v").arg(format!("{path}:{path}:ro"));
        }
        container.arg("-v").arg(format!("{}:{INSIDE}:ro", folder.0.display()));
        container.arg("-v").arg(format!("{0}:{0}:ro", model.display()));
        container.arg(GPU_IMAGE).arg(format!("{INSIDE}/{CUDA_WORKLOAD}")).args(self.arguments(&model));
        self.run(&mut container, "recording the container")?;
        self.show("docker")?;
        self.report("llm-diff.txt", "diff", &[self.recording("native"), self.recording("docker")])
    }

    /// The same for both: the weights are read from the disk, whoever had them in the page cache.
    fn arguments(&self, model: &Path) -> Vec<String> {
        let mut words = vec!["llm".to_owned(), "--model-dir".to_owned(), model.display().to_string()];
        words.extend(runs::arguments(self.machine.cuda).iter().map(|&word| word.to_owned()));
        words.extend(["--cold", "--driver", &self.machine.cuda.driver].map(str::to_owned));
        words
    }

    fn recording(&self, which: &str) -> PathBuf {
        self.machine.output.join(format!("llm-{which}.json.zst"))
    }

    fn record(&self, which: &str) -> Result<Command> {
        let mut command = Command::new(self.machine.folder.path(SPARK_TRACE));
        command.args(["record", "--quiet", "--force", "--as-root", "--output"]);
        command.arg(self.recording(which)).arg("--");
        Ok(command)
    }

    fn show(&mut self, which: &str) -> Result<()> {
        self.report(&format!("llm-{which}.txt"), "show", &[self.recording(which)])
    }

    /// Writes what `subcommand` says to `file`, and keeps it as Markdown.
    fn report(&mut self, file: &str, subcommand: &str, recordings: &[PathBuf]) -> Result<()> {
        let command = |format| {
            let mut command = Command::new(self.machine.folder.path(SPARK_TRACE));
            command.arg(subcommand).args(recordings).args(["--format", format]);
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
