//! `record --since`: the latest readings of `serve` as a recording of their own. Reads nothing from the kernel.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

use crate::cli::destination::Destination;
use crate::cli::error::Exit;
use crate::serve::state_dir;
use spark_trace_recording as recording;
use spark_trace_recording::units;
use spark_trace_recording::{Recording, retention};

/// The service looks every tenth of a second whether its file is wanted, writes after its next reading, and may be
/// writing another file.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

pub struct Since<'a> {
    /// How far back.
    pub since: Duration,
    /// The service's folder.
    pub state: &'a Path,
    pub output: &'a Destination<'a>,
    pub quiet: bool,
}

impl Since<'_> {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let file = state_dir::recent(self.state);
        let served = state_dir::is_served(self.state).with_context(|| {
            format!(
                "cannot read {}: it is the folder of a `spark-trace serve` and belongs to root",
                self.state.display()
            )
        })?;
        anyhow::ensure!(
            served,
            "no `spark-trace serve` keeps its files in {}: start one, or name its folder with --state{}",
            self.state.display(),
            if file.exists() {
                format!("; what the last one kept is in {}", file.display())
            } else {
                String::new()
            }
        );
        self.wait_for_new(&file)?;
        let mut recording = recording::read(&file)?;
        let kept = cut(&mut recording, self.since).with_context(|| {
            format!("{}: has no readings of the last {}", file.display(), in_seconds(self.since))
        })?;
        self.output.write_recording(&recording)?;
        if !self.quiet {
            if kept + Duration::from_secs(1) < self.since {
                eprintln!(
                    "spark-trace: only the last {} are available: `spark-trace serve` started later, or its --window is shorter",
                    in_seconds(kept)
                );
            }
            self.output.announce("wrote", "see it with `spark-trace show FILE`");
        }
        Ok(Exit::Fine)
    }

    /// Requests the file as it is now, and waits for it. An older one will do where none comes.
    fn wait_for_new(&self, file: &Path) -> anyhow::Result<()> {
        let changed = || file.metadata().and_then(|about| about.modified()).ok();
        let before = changed();
        state_dir::wish(self.state)
            .with_context(|| format!("cannot request the file: {} is root's", self.state.display()))?;
        let began = Instant::now();
        while changed() == before && began.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
        state_dir::take_wish(self.state);
        let Some(written) = changed() else {
            anyhow::bail!("{}: the service has not written it yet; try again in a moment", file.display());
        };
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        anyhow::ensure!(
            age < self.since,
            "{}: the service has not written it for {}, longer than the requested time: is the disk full?",
            file.display(),
            in_seconds(age)
        );
        Ok(())
    }
}

fn in_seconds(time: Duration) -> String {
    units::seconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Leaves what is not older than `since` before the last reading; how long that is.
fn cut(recording: &mut Recording, since: Duration) -> Option<Duration> {
    let last_ns = recording.samples.system.end_ns.last().copied()?;
    let from_ns = last_ns.saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    retention::begin_at(recording, from_ns);
    let first_ns = recording.samples.system.end_ns.first().copied()?;
    Some(Duration::from_nanos(last_ns - first_ns.max(from_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::SECOND;

    #[test]
    fn what_is_older_is_gone() {
        let mut recording = testing::container();
        let last = *recording.samples.system.end_ns.last().unwrap();
        let kept = cut(&mut recording, Duration::from_secs(5)).unwrap();
        assert_eq!(recording.target.started_ns, last - 5 * SECOND);
        assert_eq!((recording.target.ended_ns, kept), (last, Duration::from_secs(5)));
        let first = recording.samples.system.end_ns[1];
        assert!(first >= last - 5 * SECOND, "one reading before it stays");
        assert!(cut(&mut testing::empty(), Duration::from_secs(5)).is_none());
    }

    #[test]
    fn more_than_there_is_gives_all_of_it() {
        let mut recording = testing::container();
        let whole = recording.samples.system.clone();
        let kept = cut(&mut recording, Duration::MAX).unwrap();
        assert_eq!(recording.samples.system, whole);
        assert!(kept > Duration::ZERO && kept < Duration::from_secs(3600));
    }
}
