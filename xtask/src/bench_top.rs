//! `cargo xtask bench-top`: what `spark-trace top` takes on a busy machine, and how soon it answers a key.
//!
//! Busy is staged: processes that hold some memory, in cgroups of their own, and a storm of forks beside them. CPU time
//! and resident memory are the kernel's counts of the process; an answer is the time from a key sent through tmux to a
//! changed screen, which tmux has its part in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};

use crate::{build, cgroups};

/// Bounds that the figures are printed beside.
const CPU_PERCENT: f64 = 5.0;
const RESIDENT: u64 = 64 << 20;
const ANSWER: Duration = Duration::from_millis(100);

/// Measures what the live view takes on a busy machine
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench-top
  cargo xtask bench-top --seconds 60 --processes 1000

Needs root and tmux. The storm takes one CPU; run it on a machine that does nothing else.")]
pub struct Args {
    /// Time it is watched
    #[arg(long, default_value_t = 30, value_name = "N")]
    seconds: u64,
    /// Processes that sleep
    #[arg(long, default_value_t = 500, value_name = "N")]
    processes: usize,
    /// Cgroups that they are in
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    cgroups: u64,
    /// Also forks without end
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    storm: bool,
    /// More options of `top`, in one word
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "OPTIONS")]
    top: String,
    /// spark-trace to measure instead of building it
    #[arg(long, value_name = "PATH")]
    spark_trace: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let program = match &args.spark_trace {
        Some(path) => path.canonicalize().with_context(|| format!("{}", path.display()))?,
        None => build::all(true)?.spark_trace,
    };
    let _busy = Busy::start(args)?;
    let socket = format!("spark-trace-bench-{}", std::process::id());
    let tmux = Tmux { socket };
    let shown = format!("exec {} top {}", program.display(), args.top);
    tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "sh", "-c", &shown])?;
    let pid = tmux.run(&["display-message", "-p", "#{pane_pid}"])?.trim().to_owned();
    wait_for("the first frame", || tmux.screen().map(|screen| screen.contains("unattributed")))?;
    sleep(Duration::from_secs(2));

    let (begin, before) = (Instant::now(), cpu(&pid)?);
    sleep(Duration::from_secs(args.seconds));
    let percent = (cpu(&pid)? - before) / begin.elapsed().as_secs_f64() * 100.0;
    let mut answers = (0..20).map(|index| tmux.answer(index)).collect::<Result<Vec<_>>>()?;
    answers.sort();
    let resident = resident(&pid)?;
    let (median, longest) = (answers[answers.len() / 2], answers[answers.len() - 1]);
    println!("| Figure | Measured | Bound |\n|---|---|---|");
    println!("| CPU over {} s, of one | {percent:.1} % | {CPU_PERCENT} % |", args.seconds);
    println!("| Resident, the most | {} MiB | {} MiB |", resident >> 20, RESIDENT >> 20);
    println!(
        "| Answer to a key, median (longest of {}) | {} ms ({} ms) | {} ms |",
        answers.len(),
        median.as_millis(),
        longest.as_millis(),
        ANSWER.as_millis()
    );
    tmux.run(&["send-keys", "q"])?;
    let within = percent <= CPU_PERCENT && resident <= RESIDENT && longest <= ANSWER;
    if !within {
        bail!("a figure is above its bound");
    }
    Ok(())
}

/// Processes and cgroups that are gone with this.
struct Busy {
    children: Vec<Child>,
    cgroups: Vec<PathBuf>,
}

impl Busy {
    fn start(args: &Args) -> Result<Self> {
        let root = cgroups::memory_root()?;
        let mut busy = Self { children: Vec::new(), cgroups: Vec::new() };
        for index in 0..args.cgroups {
            let dir = root.join(format!("spark-trace-bench-{}-{index}", std::process::id()));
            fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            busy.cgroups.push(dir);
        }
        for index in 0..args.processes {
            busy.run("exec sleep 3600", &busy.cgroups[index % busy.cgroups.len()].clone())?;
        }
        if args.storm {
            let place = busy.cgroups[0].clone();
            busy.run("while :; do /bin/true; done", &place)?;
        }
        Ok(busy)
    }

    fn run(&mut self, script: &str, cgroup: &Path) -> Result<()> {
        let script = format!("echo $$ >{}/cgroup.procs; {script}", cgroup.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        self.children.push(command.spawn().context("cannot start sh")?);
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended; a leftover is reported below, by its cgroup.
            let _ = child.kill();
            let _ = child.wait();
        }
        for dir in &self.cgroups {
            let gone = || fs::remove_dir(dir).or_else(|error| if dir.exists() { Err(error) } else { Ok(()) });
            let removed = (0..50).any(|_| {
                gone().is_ok() || {
                    sleep(Duration::from_millis(20));
                    false
                }
            });
            if !removed {
                eprintln!("cannot remove {}", dir.display());
            }
        }
    }
}

struct Tmux {
    socket: String,
}

impl Tmux {
    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("tmux").args(["-u", "-L", &self.socket]).args(words).output();
        let output = output.context("cannot run tmux; `cargo xtask setup` installs it")?;
        ensure!(
            output.status.success(),
            "tmux {words:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Time from a key to what it shows: the help, and the view again.
    fn answer(&self, index: usize) -> Result<Duration> {
        let begin = Instant::now();
        self.run(&["send-keys", "?"])?;
        let shows_help = index.is_multiple_of(2);
        wait_for("an answer", || self.screen().map(|screen| screen.contains("PgUp") == shows_help))?;
        let answered = begin.elapsed();
        sleep(Duration::from_millis(137));
        Ok(answered)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
    }
}

fn wait_for(what: &str, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !seen()? {
        ensure!(begin.elapsed() < Duration::from_secs(30), "waited for {what}");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// CPU time of a process, in seconds.
fn cpu(pid: &str) -> Result<f64> {
    let stat = read(pid, "stat")?;
    // The name in parentheses may hold anything; of the fields after it these are utime and stime.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    // USER_HZ, the same on every architecture.
    Ok(ticks / 100.0)
}

fn resident(pid: &str) -> Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).context("no number")?;
    Ok(kib << 10)
}

fn read(pid: &str, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error: io::Error| anyhow::anyhow!("{path}: {error}; did top end?"))
}
