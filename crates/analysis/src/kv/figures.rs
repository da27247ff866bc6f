//! The figures of the engine's arithmetic: from the trace, from its log, from its command line.

use spark_trace_common::cuda::Kind;
use spark_trace_engines::{self as engines, EngineLog, EngineRow, Figure, Formula, Parameter, ParameterName};
use spark_trace_recording::{Process, ProcessContext, Recording};

use super::arithmetic::{self, Inputs};
use super::identity::Identity;
use super::reading::Found;
use super::{Agreement, Figures, Reading, own};
use crate::signed::signed;
use crate::view::{Scope, View};

/// A computed cache that differs by no more from what was taken was not limited by anything else.
const TAKEN_PERCENT: u64 = 1;

pub fn of(
    recording: &Recording,
    identity: &Identity,
    found: &Found,
    log: &EngineLog,
    option: Option<f64>,
) -> Figures {
    let Found { reading, baseline, container_free } = found;
    let allocated = own::live_at(recording, &reading.query);
    let estimates_graphs = log.bytes(Figure::GraphsEstimated).is_some();
    let before_graphs = || own::peak_before_graphs(recording, baseline.as_ref()?, reading);
    let allocated_peak =
        estimates_graphs.then(before_graphs).flatten().or_else(|| own::peak_at(recording, reading));
    let used = reading.total.map(|total| total.saturating_sub(reading.free));
    let outside = used.zip(allocated).map(|(used, own)| used.saturating_sub(own));
    let temporary_kv = log.size(Figure::KvTemporary).unwrap_or(0);
    let kv_taken = own::taken(recording, reading).map(|taken| taken.saturating_add(temporary_kv));
    let backed = backed(found, log).filter(|_| own::processes(recording).len() <= 1);
    let fits = identity.formula.is_some_and(is_fit);
    let margin = margin(recording, identity, log);
    let beside = || Some(log.bytes(Figure::Weights)?.saturating_add(log.bytes(Figure::Compute).unwrap_or(0)));
    let mut figures = Figures {
        allocated,
        allocated_peak,
        temporary_kv,
        transient: allocated_peak.zip(allocated).map(|(peak, now)| peak.saturating_sub(now)),
        graphs: log.bytes(Figure::GraphsEstimated).filter(|_| counts_graphs(recording, identity, log)),
        consumed: baseline.as_ref().map(|before| signed(before.free).saturating_sub(signed(reading.free))),
        outside,
        peak: allocated_peak.zip(outside).map(|(own, outside)| own.saturating_add(outside)),
        // Of an engine that reads before its weights, they are in what it took; its log tells them apart.
        kv_taken: if fits {
            log.size(Figure::KvAllocated)
        } else {
            kv_taken.map(|taken| taken.saturating_add(backed.unwrap_or(0)))
        },
        kv_backed: backed,
        kv_upper: log.bytes(Figure::KvUpperBound),
        logged_peak: log.size(Figure::Peak),
        logged_kv: log.bytes(Figure::KvBudget).or(log.bytes(Figure::KvDecided)),
        logged_allocated: log.size(Figure::KvAllocated),
        logged_outside: log.size(Figure::Outside),
        margin: margin.filter(|_| fits).unwrap_or(0),
        container_free: *container_free,
        container_cached: container_free.and_then(|_| container_cached(recording, reading.at_ns)),
        // Without it, and with a margin that is not known, there is no arithmetic.
        beside_cache: beside().filter(|_| fits && margin.is_some()),
        context: whole_context(identity.formula, log).filter(|_| fits),
        ..Figures::default()
    };
    let inputs = inputs(&figures, reading, baseline.as_ref());
    let Some(formula) = identity.formula else { return figures };
    (figures.fraction, figures.fraction_from) =
        fraction(recording, identity, formula, log, option, &inputs, &figures);
    let inputs = Inputs { fraction: figures.fraction, ..inputs };
    let is_of_total = matches!(formula, Formula::RequestedMinusParts | Formula::RequestedMinusConsumed);
    figures.requested = inputs.requested().filter(|_| is_of_total);
    figures.kv = arithmetic::kv(formula, &inputs).filter(|_| allocated.is_some() && reading.total.is_some());
    figures
}

const fn is_fit(formula: Formula) -> bool {
    matches!(formula, Formula::FitWithinFree | Formula::FitLayersWithinFree)
}

/// What the formula is computed from.
pub fn inputs(figures: &Figures, reading: &Reading, baseline: Option<&Reading>) -> Inputs {
    Inputs {
        total: reading.total.map_or(0, signed),
        free: signed(reading.free),
        baseline: baseline.map(|reading| signed(reading.free)),
        allocated: figures.allocated.map_or(0, signed),
        allocated_peak: figures.allocated_peak.map_or(0, signed),
        temporary: signed(figures.temporary_kv),
        backed: figures.kv_backed.map_or(0, signed),
        upper: figures.kv_upper,
        graphs: figures.graphs.unwrap_or(0),
        fraction: figures.fraction,
        margin: figures.margin,
        beside_cache: figures.beside_cache,
        context: figures.context,
    }
}

/// The formula of an engine whose context was stated on its command line: it is not cut (common/fit.cpp,
/// common_params_fit_impl). 0 stands for the model's own.
pub fn formula(recording: &Recording, identity: &Identity) -> Option<Formula> {
    let context = identity.row.and_then(|row| row.parameter(ParameterName::Context));
    let stated = || {
        context
            .and_then(|parameter| stated(recording, identity, parameter))
            .and_then(|(text, _)| text.parse::<f64>().ok())
            .is_some_and(|cells| cells > 0.0)
    };
    match identity.formula {
        Some(Formula::FitWithinFree) if stated() => Some(Formula::FitLayersWithinFree),
        formula => formula,
    }
}

/// Page cache of the container, which its counter has as used.
fn container_cached(recording: &Recording, at_ns: u64) -> Option<u64> {
    let balance = View::new(recording, Scope::Cgroup)?.at(at_ns);
    Some(balance.bytes("file-clean")?.saturating_add(balance.bytes("file-dirty").unwrap_or(0)))
}

/// The cache of the context that was wished for: what was allocated, unless the context was cut; then unknown. A stated
/// context is not cut: what is not on the device is on the host.
fn whole_context(formula: Option<Formula>, log: &EngineLog) -> Option<i64> {
    if formula == Some(Formula::FitLayersWithinFree) {
        let on_host = log.bytes(Figure::KvOnHost).unwrap_or(0);
        return Some(log.bytes(Figure::KvAllocated)?.saturating_add(on_host));
    }
    let wished = log.count(Figure::ContextWished);
    let cut = wished.zip(log.count(Figure::Context)).is_some_and(|(wished, is)| is < wished);
    let projected = log.bytes(Figure::Projected)?;
    let beside = log.bytes(Figure::Weights)?.checked_add(log.bytes(Figure::Compute)?)?;
    let whole = projected.checked_sub(beside)?;
    (!cut || whole > 0).then_some(whole)
}

/// Whether the estimate for graphs is taken off the cache: the log's word counts before the user's, and that before the
/// version's default.
fn counts_graphs(recording: &Recording, identity: &Identity, log: &EngineLog) -> bool {
    let parameter = identity.row.and_then(|row| row.parameter(ParameterName::GraphEstimate));
    let by_user = || {
        let (text, _) = stated(recording, identity, parameter?)?;
        Some(text.parse::<u64>().ok()? != 0)
    };
    let by_log = log.count(Figure::GraphsCounted).map(|counted| counted != 0);
    by_log
        .or_else(by_user)
        .unwrap_or_else(|| identity.variant.is_some_and(|variant| variant.takes_off_graphs))
}

/// What was there of a cache whose range of addresses is backed after a reading (sglang/srt/mem_cache/kv_vmm_backing.py: the first
/// page of each buffer): physical memory that came since the baseline. Not known where all that came is of this kind, for then
/// the weights are, too; of several processes the parts are not known.
fn backed(found: &Found, log: &EngineLog) -> Option<u64> {
    log.size(Figure::KvUpperBound)?;
    let came = |kind| {
        Some(
            own::of_kind(&found.reading, kind)?.saturating_sub(own::of_kind(found.baseline.as_ref()?, kind)?),
        )
    };
    (came(Kind::Device)? > 0).then(|| came(Kind::Physical))?
}

type From = (Option<f64>, Option<&'static str>);

/// What is stated counts before what follows from the bytes, and the default comes last.
fn fraction(
    recording: &Recording,
    identity: &Identity,
    formula: Formula,
    log: &EngineLog,
    option: Option<f64>,
    inputs: &Inputs,
    figures: &Figures,
) -> From {
    let parameter = identity.row.and_then(|row| row.parameter(ParameterName::Fraction));
    let by_user = parameter.and_then(|parameter| stated(recording, identity, parameter));
    let by_user = by_user.map(|(text, from)| (text.parse().ok(), from));
    let known = [(log.real(Figure::Fraction), "log"), (option, "option")];
    let is_part = |fraction: &f64| *fraction > 0.0 && *fraction <= 1.0;
    for (fraction, from) in known.into_iter().chain(by_user) {
        if let Some(fraction) = fraction.filter(is_part) {
            return (Some(fraction), Some(from));
        }
    }
    let default = parameter.and_then(|parameter| parameter.default_of(identity.version)).filter(is_part);
    let taken = figures.kv_taken.filter(|taken| *taken > 0).map(signed);
    let by_default =
        default.and_then(|fraction| arithmetic::kv(formula, &Inputs { fraction: Some(fraction), ..*inputs }));
    let fits = by_default
        .zip(taken)
        .is_some_and(|(kv, taken)| kv.abs_diff(taken) <= taken.unsigned_abs() / 100 * TAKEN_PERCENT);
    if !fits
        && let Some(fraction) = taken.and_then(|taken| arithmetic::implied_fraction(formula, inputs, taken))
    {
        return (Some(fraction), Some("allocations"));
    }
    (default, default.map(|_| "default"))
}

/// Kept free on the device; `None` where that is not known.
fn margin(recording: &Recording, identity: &Identity, log: &EngineLog) -> Option<i64> {
    let parameter = |name| identity.row.and_then(|row| row.parameter(name));
    let Some(margin) = parameter(ParameterName::Margin) else { return Some(0) };
    // Ollama keeps its overhead free beside it, in bytes (envconfig/config.go, GpuOverhead).
    let overhead = || {
        let (text, _) = stated(recording, identity, parameter(ParameterName::Overhead)?)?;
        text.parse().ok()
    };
    let overhead = log.bytes(Figure::Overhead).or_else(overhead).unwrap_or(0);
    let own = match (log.bytes(Figure::Margin), stated(recording, identity, margin)) {
        (Some(logged), _) => logged,
        (None, Some((text, _))) => for_the_device(text, recording.host.gpus.len())?,
        (None, None) => margin.default_of(identity.version).map_or(0, |bytes| bytes as i64),
    };
    Some(own.saturating_add(overhead))
}

/// MiB, or a list with a value for each device; one value stands for all (common/arg.cpp, --fit-target). Of several devices
/// which one was read is not known.
fn for_the_device(text: &str, devices: usize) -> Option<i64> {
    let values: Option<Vec<f64>> = text.split(',').map(|value| value.trim().parse().ok()).collect();
    let values = values?;
    let first = values.first()?;
    let is_known = devices <= 1 || values.iter().all(|value| value == first);
    (is_known && *first >= 0.0).then_some((first * f64::from(1 << 20)) as i64)
}

/// What a user has set: on a command line, which comes first (common/arg.cpp, common_params_parse_ex), or in the environment.
fn stated<'a>(
    recording: &'a Recording,
    identity: &Identity,
    parameter: &Parameter,
) -> Option<(&'a str, &'static str)> {
    let argument = argument(recording, identity, parameter).map(|text| (text, "arguments"));
    argument.or_else(|| Some((variable(recording, identity, parameter)?, "environment")))
}

/// The value of a flag on a command line of the target: `--flag VALUE` or `--flag=VALUE`; the last counts.
fn argument<'a>(recording: &'a Recording, identity: &Identity, parameter: &Parameter) -> Option<&'a str> {
    let engine = identity.row?;
    let processes = recording.provenance.processes.iter();
    let lines = processes.map(|process| (process.comm.as_str(), process.argv.as_slice()));
    let lines = lines.chain([("", recording.target.argv.as_slice())]);
    lines.filter_map(|(comm, line)| value_of(engine, comm, line, parameter.flags)).next_back()
}

/// A variable of the environment of a process of the engine, or of the one that it runs.
fn variable<'a>(recording: &'a Recording, identity: &Identity, parameter: &Parameter) -> Option<&'a str> {
    let engine = identity.row?;
    let provenance = &recording.provenance;
    let is_its = |process: &&Process| {
        let by_comm = engines::by_comm(&process.comm);
        by_comm.iter().any(|found| *found == engine.engine || Some(*found) == engine.runs)
            || engines::own_arguments(engine, &process.argv).is_some()
    };
    let contexts = provenance.processes.iter().filter(is_its);
    let contexts = contexts.filter_map(|process| provenance.contexts.get(process.context? as usize));
    let value = |context: &'a ProcessContext| {
        parameter.environment.iter().find_map(|name| context.environment.get(*name)).map(String::as_str)
    };
    contexts.filter_map(value).next_back()
}

/// Of the engine's own arguments. Other programs, and scripts in which an engine runs, have long names alone: `-c` is many
/// things.
fn value_of<'a>(engine: &EngineRow, comm: &str, line: &'a [String], flags: &[&str]) -> Option<&'a str> {
    // Options of Python programs have either stroke between their words.
    let dashed = |text: &str| text.replace('_', "-");
    let own = engines::own_arguments(engine, line)
        .or_else(|| line.get(1..).filter(|_| engines::by_comm(comm).contains(&engine.engine)));
    let names = flags.iter().filter(|flag| own.is_some() || flag.starts_with("--"));
    let names: Vec<String> = names.map(|flag| dashed(flag)).collect();
    let line = own.unwrap_or(line);
    let mut found = None;
    for (index, argument) in line.iter().enumerate() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (dashed(name), Some(value)),
            None => (dashed(argument), line.get(index + 1).map(String::as_str)),
        };
        if names.contains(&name) {
            found = value.filter(|value| value.starts_with(|first: char| first.is_ascii_digit())).or(found);
        }
    }
    found
}

pub fn agreement(figures: &Figures) -> Vec<Agreement> {
    let size = |bytes: Option<u64>| bytes.map(signed);
    let pairs = [
        ("peak", size(figures.logged_peak), size(figures.peak)),
        ("outside the framework's allocator", size(figures.logged_outside), size(figures.outside)),
        ("KV cache, computed", figures.logged_kv, figures.kv),
        ("KV cache, allocated", size(figures.logged_allocated), size(figures.kv_taken)),
    ];
    let known = pairs.into_iter().filter_map(|(figure, logged, traced)| Some((figure, logged?, traced?)));
    known
        .filter(|(_, logged, _)| *logged > 0)
        .map(|(figure, logged, traced)| Agreement {
            figure,
            logged,
            traced,
            percent: (traced as f64 - logged as f64) / logged as f64 * 100.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::identity;
    use spark_trace_engines::Engine;

    #[test]
    fn a_flag_is_found_however_its_words_are_joined() {
        let flags = ["--kv_cache_free_gpu_memory_fraction", "--mem-fraction-static"];
        for (line, wanted) in [
            ("serve --kv_cache_free_gpu_memory_fraction 0.8", Some(0.8)),
            ("serve --kv-cache-free-gpu-memory-fraction=0.7", Some(0.7)),
            ("serve --mem_fraction_static 0.6 --mem-fraction-static 0.5", Some(0.5)),
            ("serve --mem-fraction-static much", None),
            ("serve --mem-fraction-static", None),
        ] {
            assert_eq!(found(Engine::TensorRtLlm, "python3", line, &flags), wanted, "{line}");
        }
    }

    #[test]
    fn a_short_flag_is_the_engines_own_alone() {
        for (comm, line, wanted) in [
            ("llama-server", "/app/llama-server -m x.gguf -c 8192", Some(8192.0)),
            ("llama-bench", "./llama-bench -c 512", Some(512.0)),
            ("taskset", "taskset -c 3 llama-server --ctx-size 4096", Some(4096.0)),
            ("taskset", "taskset -c 3 llama-server", None),
            ("head", "head -c 4096 /dev/zero", None),
            ("python3", "python3 chat.py --ctx-size 2048", Some(2048.0)),
        ] {
            assert_eq!(found(Engine::LlamaCpp, comm, line, &["--ctx-size", "-c"]), wanted, "{line}");
        }
    }

    fn found(engine: Engine, comm: &str, line: &str, flags: &[&str]) -> Option<f64> {
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        value_of(engines::row(engine).unwrap(), comm, &line, flags).and_then(|value| value.parse().ok())
    }

    #[test]
    fn a_margin_is_that_of_the_device_where_that_is_known() {
        let mib = |mib: i64| Some(mib << 20);
        for (text, devices, wanted) in [
            ("512", 1, mib(512)),
            ("512", 2, mib(512)),
            ("512,1024", 1, mib(512)),
            ("512, 512", 2, mib(512)),
            ("512,1024", 2, None),
            ("-1", 1, None),
            ("much", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(for_the_device(text, devices), wanted, "{text}");
        }
    }

    #[test]
    fn variables_of_the_engine_count_where_its_arguments_say_nothing() {
        let mut recording = spark_trace_testing::empty();
        let context = |name: &str, value: &str| ProcessContext {
            environment: [(name.to_owned(), value.to_owned())].into(),
            ..ProcessContext::default()
        };
        let process = |comm: &str, line: &str, context| Process {
            comm: comm.to_owned(),
            argv: line.split(' ').map(str::to_owned).collect(),
            context: Some(context),
            ..Process::default()
        };
        let provenance = &mut recording.provenance;
        provenance.contexts =
            vec![context("LLAMA_ARG_FIT_TARGET", "256,256"), context("LLAMA_ARG_FIT_TARGET", "7")];
        provenance.processes =
            vec![process("llama-server", "llama-server -m x", 0), process("redis", "redis", 1)];
        let log = engines::parse(std::iter::empty::<&str>());
        let identity = identity::of(&recording, &log, Some(Engine::LlamaCpp));
        let found = |recording: &Recording| margin(recording, &identity, &log);
        assert_eq!(found(&recording), Some(256 << 20));
        recording.provenance.processes[0].argv.extend(["-fitt".to_owned(), "128".to_owned()]);
        assert_eq!(found(&recording), Some(128 << 20), "arguments come first");
        recording.provenance.processes.remove(0);
        assert_eq!(found(&recording), Some(1 << 30), "of others nothing is taken");
        let ollama = identity::of(&recording, &log, Some(Engine::Ollama));
        recording.provenance.contexts[1] = context("OLLAMA_GPU_OVERHEAD", "1000");
        recording.provenance.processes = vec![process("ollama", "ollama serve", 1)];
        assert_eq!(margin(&recording, &ollama, &log), Some((1 << 30) + 1000));
    }
}
