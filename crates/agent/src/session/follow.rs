//! The loop of a session: whatever is due has its turn, whatever else there is much of.

use std::{io, time::Duration};

use spark_trace_common::capacities::WAKE_EVERY_NS;
use tokio::{
    process::Child,
    signal::unix::Signal,
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tracing::debug;

use super::{Named, Progress, Report, Session, SessionError, View, Wishes, io_error};
use crate::{
    decode::Event,
    messages, now_ns,
    source::process,
    statistics,
    subject::{Spec, command},
    symbols::Names,
    tracer::Notice,
};
use spark_trace_recording::InstantKind;

/// How long readings wait for names that whoever looks wants; what comes later is shown later.
const PATIENCE: Duration = Duration::from_millis(100);

/// Between two sweeps of the kernel pages in use there are so many readings at least, ...
const SWEEP_READINGS: u64 = 10;
/// ... and so much time: with fewer pages to retire each is quicker, but all that are in use are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Ticks between two sweeps. None of them has a divisor that those between two windows of statistics have, so that a window
/// has a sweep as often as any other interval.
fn sweep_ticks(interval: Duration) -> u64 {
    let ticks = SWEEP_EVERY.as_nanos().div_ceil(interval.as_nanos().max(1)).max(SWEEP_READINGS.into()) as u64;
    (ticks..).find(|ticks| common_divisor(*ticks, statistics::EVERY) == 1).unwrap_or(ticks)
}

/// The greatest one.
const fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// For so long the kernel side wakes nobody again for events that can wait.
const WAKE_EVERY: Duration = Duration::from_nanos(WAKE_EVERY_NS);

/// Events are taken for so long before it is looked whether anything else is due.
const TURN: Duration = Duration::from_millis(20);

/// A command that has been ended by whoever looks has so long to do it in order.
const LONGEST_FAREWELL: Duration = Duration::from_secs(30);

/// What the kernel puts before each record (kernel/bpf/ringbuf.c struct bpf_ringbuf_hdr).
const RECORD_HEADER: usize = 8;

/// How many events are taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Those of a turn.
    Turn,
    /// All that are there, and no more than the buffer holds: what comes meanwhile may never end.
    All,
}

impl Session {
    pub(super) async fn follow(&mut self, progress: Report<'_>) -> Result<Option<i32>, SessionError> {
        let started = Instant::now();
        let mut ticks = interval_at(started + self.options.interval, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut drains = self.tracer.retention.policy().drain_every.map(|every| {
            let mut drains = interval_at(started + every, every);
            drains.set_missed_tick_behavior(MissedTickBehavior::Skip);
            drains
        });
        let by_event = drains.is_none();
        let mut once_more: Option<Instant> = None;
        let mut tick = 0u64;
        let sweep_ticks = sweep_ticks(self.options.interval);
        let mut exit_code = None;
        // Aggregates go to the journal at growing distances: it is only read if we are killed.
        let mut next_dump = Duration::from_secs(1);
        loop {
            if self.is_over(exit_code.is_some(), started) {
                return Ok(exit_code);
            }
            let has_backlog = self.has_backlog;
            let put_off = self.put_off.until;
            let again = once_more;
            tokio::select! {
                // What ends a trace comes first, then readings; of events there may be more than can ever be taken.
                biased;
                _ = self.terminations.recv() => self.interrupt(libc::SIGTERM),
                _ = hang_up(&mut self.hangups) => self.interrupt(libc::SIGHUP),
                _ = self.interrupts.recv() => {
                    self.interrupt(if self.interrupted > 0 { libc::SIGKILL } else { libc::SIGINT });
                }
                status = wait(&mut self.child) => {
                    self.child = None;
                    let status = status.map_err(io_error("wait for the command"))?;
                    exit_code = Some(command::exit_code(status));
                    debug!("the command has ended: {status}");
                    self.drain(Take::All)?;
                    self.close_containers()?;
                    self.tracer.phase("exit", now_ns())?;
                    self.nvml.request_now();
                    self.tracer.sample()?;
                }
                _ = ticks.tick() => {
                    tick += 1;
                    self.statistics.tick(tick, || self.tracer.object.counted());
                    let mut beside = None;
                    if tick.is_multiple_of(sweep_ticks) {
                        beside = self.note_beside()?;
                        self.tracer.object.sweep_now_and_then()?;
                        self.tracer.tidy_names()?;
                    }
                    self.drain(Take::Turn)?;
                    self.tracer.sample()?;
                    if self.tracer.retention.is_window() {
                        self.add_health_and_cost(None)?;
                    } else if started.elapsed() >= next_dump {
                        next_dump = started.elapsed() * 2;
                        self.tracer.journal_aggregates(&Names::None)?;
                    }
                    self.journal_flush()?;
                    self.tracer.object.hand_on_messages();
                    let losses = self.tracer.object.losses()?;
                    messages::log_losses(&mut self.losses, &losses);
                    let lost = losses.iter().map(|l| l.count).sum();
                    let notice = self.note_journal().or(beside);
                    let wishes = progress(&Progress {
                        elapsed: started.elapsed(),
                        recording: self.tracer.journal.recording(),
                        lost,
                        notice: notice.as_deref(),
                        awaits_names: self.tracer.stacks.awaits_names(),
                    });
                    self.grant(wishes)?;
                    // With very short intervals the next tick is due already: signals must be heard of all the same.
                    tokio::task::yield_now().await;
                }
                view = view(&mut self.views) => view(self.tracer.journal.recording()),
                ready = self.containers.ready() => {
                    self.drain(Take::Turn)?;
                    self.containers_ready(ready)?;
                }
                () = drain(&mut drains) => self.drain(Take::Turn)?,
                // Pending once, so that the timers and signals of the runtime are looked at.
                () = tokio::task::yield_now(), if has_backlog => self.drain(Take::Turn)?,
                () = tokio::time::sleep_until(put_off.unwrap_or(started)), if put_off.is_some() => {
                    self.drain(Take::Turn)?;
                }
                () = tokio::time::sleep_until(again.unwrap_or(started)), if again.is_some() => {
                    once_more = None;
                    self.drain(Take::Turn)?;
                }
                ready = self.events.readable_mut(), if by_event && !has_backlog => {
                    let mut guard = ready.map_err(io_error("watch the event buffer"))?;
                    guard.clear_ready();
                    drop(guard);
                    // What comes from now on until the kernel side wakes us again is taken then.
                    once_more = Some(Instant::now() + WAKE_EVERY);
                    self.drain(Take::Turn)?;
                }
            }
        }
    }

    /// Somebody wants the end: so does the command hear.
    fn interrupt(&mut self, signal: i32) {
        self.interrupted += 1;
        self.pass_on(signal);
    }

    /// Does what whoever looks wants, and forgets what nobody will look at any more.
    fn grant(&mut self, wishes: Wishes) -> Result<(), SessionError> {
        match self.end_wanted {
            None if wishes.end => {
                self.end_wanted = Some(std::time::Instant::now());
                self.interrupt(libc::SIGTERM);
            }
            Some(since) if since.elapsed() >= LONGEST_FAREWELL => self.interrupt(libc::SIGKILL),
            _ => {}
        }
        if !self.tracer.retention.is_window() {
            return Ok(());
        }
        self.tracer.forget(wishes.keep_since)?;
        if let Named::Process(pid) = wishes.names {
            self.tracer.read_mappings(pid)?;
        }
        if wishes.details {
            self.tracer.read_aggregates(InstantKind::Now)?;
            let names = match wishes.names {
                Named::None => Names::None,
                Named::All => Names::All(PATIENCE),
                Named::Process(pid) => Names::Of(self.tracer.stacks_of(pid), PATIENCE),
            };
            self.tracer.journal_aggregates(&names)?;
        } else if self.tracer.stacks.awaits_names() {
            // Those that have come since are handed on.
            self.tracer.journal_aggregates(&Names::None)?;
        }
        Ok(())
    }

    /// What is to be said of a journal that cannot be written any more, once.
    pub(super) fn note_journal(&mut self) -> Option<String> {
        let failure = self.tracer.journal.failure().filter(|_| !self.journal_failed)?;
        let notice = format!(
            "the journal is not written any more ({failure}): the recording goes on in memory, and is lost if spark-trace \
             is killed"
        );
        self.journal_failed = true;
        self.warnings.push(notice.clone());
        Some(notice)
    }

    fn journal_flush(&mut self) -> Result<(), SessionError> {
        self.tracer.journal.flush().map_err(io_error("write the journal"))
    }

    /// Waits until the journal is written, or cannot be.
    pub(super) fn await_journal(&mut self) -> Result<(), SessionError> {
        self.journal_flush()?;
        if let Some(end) = &self.journal_end {
            end.wait();
        }
        self.journal_flush()
    }

    /// Whether there is nothing more to follow.
    fn is_over(&self, exited: bool, started: Instant) -> bool {
        let interrupted = self.interrupted;
        if self.options.duration.is_some_and(|d| started.elapsed() >= d) && self.child.is_none() {
            return true;
        }
        if self.child.is_some() {
            return false;
        }
        match &self.options.spec {
            // Where clients have ended, detached containers may go on.
            Spec::Command { .. } => {
                exited
                    && !self.containers.is_busy()
                    && (interrupted > 0 || self.tracer.containers_are_empty())
            }
            Spec::System { argv } => interrupted > 0 || !argv.is_empty() && exited,
            Spec::Pid(pid) => interrupted > 0 || process::has_ended(*pid),
            Spec::Cgroup(_) | Spec::Container { .. } => interrupted > 0 || self.tracer.is_empty(),
        }
    }

    /// Takes events out of the buffer. What is read while some are left waits for them.
    pub(super) fn drain(&mut self, take: Take) -> Result<(), SessionError> {
        self.take_events(take)?;
        Ok(self.tracer.finish_answers()?)
    }

    fn take_events(&mut self, take: Take) -> Result<(), SessionError> {
        // Before the events: all calls that were made before a reading are among these.
        let samples = self.nvml.take();
        self.tracer.expect_samples(samples);
        self.take_lines()?;
        let (began, began_ns) = (Instant::now(), now_ns());
        let turn = TURN.min(self.options.interval / 4);
        let mut taken = 0;
        self.tracer.is_behind = true;
        if take == Take::Turn && self.put_off.still_waits() {
            self.put_off.take_out(self.events.get_mut());
            self.has_backlog = false;
            return Ok(());
        }
        self.put_off.until = None;
        loop {
            let put_off = self.put_off.pop();
            let from_buffer = put_off.is_none();
            // Decoded before anything else: handling an event may take long, and the buffer's room is wanted back.
            let mut decoded = |bytes: &[u8]| {
                let event = self.tracer.decode(bytes);
                let may_wait = event.as_ref().filter(|_| take == Take::Turn && self.put_off.has_room());
                let until_ns = may_wait.and_then(|event| self.tracer.waits_until(event));
                (event, until_ns.map(|until_ns| (bytes.to_vec(), until_ns)), bytes.len())
            };
            let next = match put_off {
                Some(record) => Some(decoded(&record)),
                None => self.events.get_mut().next().map(|item| decoded(&item)),
            };
            let Some((event, waits, length)) = next else {
                (self.has_backlog, self.tracer.is_behind) = (false, false);
                return Ok(self.tracer.take_samples(u64::MAX)?);
            };
            if let Some((record, until_ns)) = waits {
                self.put_off.put(record, Duration::from_nanos(until_ns.saturating_sub(now_ns())));
                self.put_off.take_out(self.events.get_mut());
                self.has_backlog = false;
                return Ok(());
            }
            if from_buffer {
                taken += length + RECORD_HEADER;
            }
            if let Some(event) = event {
                self.handle(event)?;
            }
            let enough = match take {
                Take::Turn => began.elapsed() >= turn,
                Take::All => taken >= self.options.ring_bytes as usize,
            };
            if enough {
                self.has_backlog = true;
                // All that was there when it began has been taken.
                return if take == Take::All { Ok(self.tracer.take_samples(began_ns)?) } else { Ok(()) };
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), SessionError> {
        match self.tracer.event(event)? {
            Some(Notice::Candidate(container)) => self.container_appeared(container),
            Some(Notice::Entered(container)) => self.container_entered(container),
            Some(Notice::Client { pid, client, at_ns }) => self.client_began(pid, client, at_ns),
            Some(Notice::ClientEnded { pid, at_ns }) => self.client_ended(pid, at_ns),
            // The cgroup is removed any moment: a last reading.
            Some(Notice::Emptied(_)) => Ok(self.tracer.sample()?),
            None => Ok(()),
        }
    }

    /// Passes a signal on to the command, unless the terminal has sent it there already.
    fn pass_on(&self, signal: i32) {
        let Some(pid) = self.child.as_ref().and_then(Child::id).and_then(|p| i32::try_from(p).ok()) else {
            return;
        };
        // SAFETY: no pointers involved.
        let from_terminal = signal == libc::SIGINT
            && unsafe {
                libc::isatty(libc::STDIN_FILENO) == 1
                    && libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp()
            };
        if !from_terminal {
            // SAFETY: no pointers involved; the child has not been waited for, so the pid is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }
}

/// Waits for a hang-up; for ever where it is ignored.
async fn hang_up(hangups: &mut Option<Signal>) {
    match hangups {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits for a view; for ever where there are none, or no more.
async fn view(views: &mut Option<UnboundedReceiver<View>>) -> View {
    match views {
        Some(views) => match views.recv().await {
            Some(view) => view,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Waits until events are due; for ever where each is taken as it comes.
async fn drain(drains: &mut Option<Interval>) {
    match drains {
        Some(drains) => _ = drains.tick().await,
        None => std::future::pending().await,
    }
}

/// Waits for the command; for ever where there is none.
async fn wait(child: &mut Option<Child>) -> io::Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_a_second_apart_or_ten_readings_and_out_of_step_with_statistics() {
        let ticks = |millis| sweep_ticks(Duration::from_millis(millis));
        assert_eq!([ticks(10), ticks(100), ticks(1000), ticks(5000)], [100, 10, 10, 10]);
        // 21 of them would be a second.
        assert_eq!(ticks(48), 22);
        assert!((1..2000).all(|millis| common_divisor(ticks(millis), statistics::EVERY) == 1));
    }
}
