//! `cargo xtask bench-reading`: what `diff`, `kv`, `report` and `show` take for recordings of a given size.
//!
//! Recordings are those of results/ with their readings made more, each as often as it takes. Figures are of this
//! machine and of a whole process: time at the wall and the largest resident memory that the kernel counted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{build, workspace};

const A: &str = "results/2026-11-21-emulated-spark/native.json.zst";
const B: &str = "results/2026-11-21-emulated-spark/container.json.zst";
const MIB: u64 = 1 << 20;

/// Measures what comparing two large recordings takes
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench-reading
  cargo xtask bench-reading --mib 400 --rounds 3

Run it on a machine that does nothing else. Time is a median of the rounds, memory the largest of them.")]
pub struct Args {
    /// Size of each of the two recordings, MiB of JSON
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    mib: u64,

    /// Times that each command is run
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// spark-trace to measure instead of building it
    #[arg(long, value_name = "PATH")]
    spark_trace: Option<PathBuf>,
}

/// One command, and what it must stay below.
struct Subject {
    args: &'static [&'static str],
    time: Duration,
    memory: u64,
}

const SUBJECTS: &[Subject] = &[
    Subject { args: &["diff", "a.json", "b.json"], time: Duration::from_secs(1), memory: 512 * MIB },
    Subject { args: &["kv", "a.json", "b.json"], time: Duration::from_secs(1), memory: 512 * MIB },
    Subject {
        args: &["report", "a.json", "b.json", "-o", "report.html", "--force"],
        time: Duration::from_secs(3),
        memory: 512 * MIB,
    },
    Subject { args: &["show", "a.json"], time: Duration::from_secs(1), memory: 512 * MIB },
];

pub fn run(args: &Args) -> Result<()> {
    let program = match &args.spark_trace {
        Some(path) => path.canonicalize().with_context(|| format!("{}", path.display()))?,
        None => build::all(true)?.spark_trace,
    };
    let dir = std::env::temp_dir().join(format!("spark-trace-bench-reading-{}", std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let measured = measure(args, &program, &dir);
    let _ = fs::remove_dir_all(&dir);
    measured
}

fn measure(args: &Args, program: &Path, dir: &Path) -> Result<()> {
    for (name, source) in [("a.json", A), ("b.json", B)] {
        let bytes = enlarge(&workspace::root().join(source), &dir.join(name), args.mib * MIB)?;
        eprintln!("{name}: {source}, {} MiB", bytes / MIB);
    }
    println!("| Command | Time, median (least, most) | Bound | Memory | Bound |\n|---|---|---|---|---|");
    // Rounds go through all commands, so that a busy minute is everybody's.
    let mut figures = vec![Vec::new(); SUBJECTS.len()];
    for _ in 0..args.rounds {
        for (subject, figures) in SUBJECTS.iter().zip(&mut figures) {
            figures.push(once(program, dir, subject.args)?);
        }
    }
    for (subject, mut figures) in SUBJECTS.iter().zip(figures) {
        figures.sort();
        let seconds = |index: usize| figures[index].0.as_secs_f64();
        let memory = figures.iter().map(|(_, memory)| *memory).max().unwrap_or(0);
        println!(
            "| {} | {:.2} s ({:.2} to {:.2}) | {:.0} s | {} MiB | {} MiB |",
            subject.args[0],
            seconds(figures.len() / 2),
            seconds(0),
            seconds(figures.len() - 1),
            subject.time.as_secs_f64(),
            memory / MIB,
            subject.memory / MIB,
        );
    }
    let html = fs::metadata(dir.join("report.html"))?.len();
    println!("\nreport.html: {:.1} MiB", html as f64 / MIB as f64);
    Ok(())
}

/// Writes the recording with so many more readings that it is about `size` bytes long.
fn enlarge(source: &Path, to: &Path, size: u64) -> Result<u64> {
    let what = || format!("cannot enlarge {}", source.display());
    let file = fs::File::open(source).with_context(what)?;
    let text = zstd::decode_all(io::BufReader::new(file)).with_context(what)?;
    let recording: Value = serde_json::from_slice(&text).with_context(what)?;
    let samples = serde_json::to_vec(&recording["samples"])?.len() as u64;
    let times = (size.saturating_sub(text.len() as u64) / samples.max(1) + 1) as usize;
    let mut out = io::BufWriter::new(fs::File::create(to).with_context(|| format!("{}", to.display()))?);
    object(&mut out, &recording, |out, key, value| match key {
        "samples" => object(out, value, |out, _, value| match value {
            Value::Array(several) => array(out, several, |out, series| widened(out, series, times)),
            one => widened(out, one, times),
        }),
        _ => Ok(serde_json::to_writer(out, value)?),
    })
    .with_context(|| format!("cannot write {}", to.display()))?;
    out.flush()?;
    Ok(fs::metadata(to)?.len())
}

type Out = io::BufWriter<fs::File>;

/// Writes an object value by value: whole, it would be this process's largest memory, and `ru_maxrss` of a child
/// begins with that of its parent (kernel/fork.c, fs/exec.c: `setmax_mm_hiwater_rss`).
fn object(out: &mut Out, value: &Value, write: impl Fn(&mut Out, &str, &Value) -> Result<()>) -> Result<()> {
    let fields = value.as_object().context("no object")?;
    for (index, (key, value)) in fields.iter().enumerate() {
        write!(out, "{}{}:", if index == 0 { '{' } else { ',' }, json!(key))?;
        write(out, key, value)?;
    }
    Ok(write!(out, "{}", if fields.is_empty() { "{}" } else { "}" })?)
}

fn array(out: &mut Out, values: &[Value], write: impl Fn(&mut Out, &Value) -> Result<()>) -> Result<()> {
    out.write_all(b"[")?;
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write(out, value)?;
    }
    Ok(out.write_all(b"]")?)
}

/// Writes a series with `times` readings for each of its own, evenly spread over the same time.
fn widened(out: &mut Out, series: &Value, times: usize) -> Result<()> {
    let begin = series["begin_ns"].as_array().context("a series without begin_ns")?;
    let readings = begin.len() * times;
    let at = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
    let (first, last) = (at(begin.first()), at(begin.last()));
    let step = (last.saturating_sub(first) / readings.max(1) as u64).max(1);
    let every =
        |offset: u64| (0..readings as u64).map(|index| first + index * step + offset).collect::<Vec<_>>();
    object(out, series, |out, key, value| match key {
        "begin_ns" => Ok(serde_json::to_writer(out, &every(0))?),
        "end_ns" => Ok(serde_json::to_writer(out, &every((step - 1).min(1000)))?),
        "columns" => object(out, value, |out, _, column| {
            let column = column.as_array().context("a column that is no array")?;
            let wide: Vec<&Value> =
                column.iter().flat_map(|value| std::iter::repeat_n(value, times)).collect();
            Ok(serde_json::to_writer(out, &wide)?)
        }),
        _ => Ok(serde_json::to_writer(out, value)?),
    })
}

/// Time and largest resident memory of one run.
fn once(program: &Path, dir: &Path, args: &[&str]) -> Result<(Duration, u64)> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let pid = libc::pid_t::try_from(child.id()).context("a process id beyond pid_t")?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both places are ours and live; the child is waited for here and nowhere else.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited == pid, "cannot wait for spark-trace: {}", io::Error::last_os_error());
    if !(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0) {
        bail!("spark-trace {} failed: wait status {status}", args.join(" "));
    }
    // SAFETY: all bytes were zero, a valid rusage, and the kernel has filled it in.
    let usage = unsafe { usage.assume_init() };
    // getrusage(2): ru_maxrss is in KiB.
    Ok((began.elapsed(), u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024))
}
