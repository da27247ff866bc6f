//! Arguments that the commands with a report share, and what they do with one.

use std::path::Path;

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::headings;
use crate::cli::output;
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::instant_spec::{Choice, InstantSpec};
use spark_trace_analysis::moment::{self, Moment, Moments};
use spark_trace_analysis::sort::{Arrange, Sort};
use spark_trace_analysis::view::Scope;
use spark_trace_recording::Recording;
use spark_trace_recording::units;
use spark_trace_render::{FORMATS, Format, Style};

/// Lists for people are this long...
pub const TOP: usize = 10;
/// ...and on the first screen of `show`.
pub const TOP_FIRST: usize = 3;

#[derive(Debug, clap::Args)]
pub struct ViewArgs {
    /// Instant to show: peak (of each plane), end (the last reading), kv (the KV-cache reading), a time since the start
    /// such as 465ms or 12.5s, or @NS, nanoseconds of the recording's clock [default: peak; `diff`: kv if both recordings
    /// have a KV-cache reading]
    #[arg(help_heading = headings::CONTENT, long, value_name = "INSTANT")]
    pub at: Option<Choice>,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_parser = formats(), default_value = "table")]
    format: &'static Format,
    /// Order of the source rows; unattributed is always last
    #[arg(help_heading = headings::OUTPUT, long, value_parser = sorts(), default_value = "source")]
    sort: Sort,
    /// Rows in lists of files, stacks and so on [default: 10; 3 on the first screen of `show`; all for json]
    #[arg(help_heading = headings::OUTPUT, long, value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    pub width: output::WidthArg,
}

impl ViewArgs {
    /// Puts a report in order, with lists of `top` by default; `form` gives it a format's form.
    pub fn render<R: Arrange, E>(
        &self,
        mut report: R,
        top: usize,
        form: impl Fn(&Format, &R, Style) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        report.sort(self.sort);
        if let Some(top) = self.top.or((!self.format.whole).then_some(top)) {
            report.keep(top);
        }
        form(self.format, &report, output::style(self.width))
    }

    /// A format for programs has everything, and nothing to choose from.
    pub const fn is_whole(&self) -> bool {
        self.format.whole
    }
}

/// The instant of a recording that was chosen. One that it does not have is an error: the peak in its place would answer
/// another question.
pub fn instant<'a>(
    at: Option<Choice>,
    path: &Path,
    run: impl Into<Derived<'a>>,
) -> anyhow::Result<InstantSpec> {
    let run = run.into();
    let at = moment::resolve(at.unwrap_or_default(), &run).with_context(|| path.display().to_string())?;
    is_within(at, path, run.recording)?;
    Ok(at)
}

/// The instants at which two recordings are compared.
pub fn moment(
    at: Option<Choice>,
    (path_a, a): (&Path, &Derived<'_>),
    (path_b, b): (&Path, &Derived<'_>),
) -> anyhow::Result<Moment> {
    if at.is_none() {
        return Ok(Moment::of_runs(a, b));
    }
    let at = Moments { a: instant(at, path_a, a)?, b: instant(at, path_b, b)? };
    Ok(Moment::chosen(at, a, b))
}

/// A time after the last reading is of no reading: the last one in its place would be taken for one of that time.
fn is_within(at: InstantSpec, path: &Path, recording: &Recording) -> anyhow::Result<()> {
    let (InstantSpec::SinceStart(_) | InstantSpec::Time(_)) = at else { return Ok(()) };
    let target = &recording.target;
    let samples = &recording.samples;
    let cgroups = samples.cgroups.iter().map(|cgroup| &cgroup.series);
    let devices = samples.devices.iter().map(|device| &device.series);
    let all = [&samples.system, &samples.cuda].into_iter().chain(cgroups).chain(devices);
    let last = all.filter_map(|series| series.end_ns.last().copied()).max();
    let end_ns = last.unwrap_or(0).max(target.ended_ns);
    let first_ns = samples.system.begin_ns.first().copied().unwrap_or(target.started_ns);
    anyhow::ensure!(
        at.time(target.started_ns).is_none_or(|time| time >= first_ns.min(target.started_ns)),
        "{}: --at {at} is before the first reading, which is at @{first_ns}",
        path.display()
    );
    let length = units::seconds(end_ns.saturating_sub(target.started_ns));
    anyhow::ensure!(
        at.time(target.started_ns).is_none_or(|time| time <= end_ns),
        "{}: --at {at} is after the end of the run, which took {length} and ended at @{end_ns}; a number without `@` is seconds \
         since the start",
        path.display()
    );
    Ok(())
}

pub fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.about));
    // The parser lets nothing through that is not in the table; the first is the default.
    PossibleValuesParser::new(names)
        .map(|name| FORMATS.iter().find(|format| format.name == name).unwrap_or(&FORMATS[0]))
}

fn sorts() -> impl TypedValueParser<Value = Sort> {
    PossibleValuesParser::new(Sort::ALL.map(Sort::as_str))
        .map(|name| Sort::ALL.into_iter().find(|sort| sort.as_str() == name).unwrap_or_default())
}

pub fn planes() -> impl TypedValueParser<Value = Scope> {
    PossibleValuesParser::new(Scope::ALL.map(Scope::as_str))
        .map(|name| Scope::ALL.into_iter().find(|scope| scope.as_str() == name).unwrap_or(Scope::System))
}
