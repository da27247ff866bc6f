//! What the command and the target's containers write.

use super::{Session, SessionError};
use crate::{
    now_ns,
    output::{
        Output,
        container::{ContainerLog, Expected},
    },
    realtime_offset_ns,
    subject::question::Endpoint,
};

/// Containers whose logs are followed, at most: each has a client of its own.
const MOST_LOGS: usize = 8;

impl Session {
    /// Follows the log of a container where output is read: from its last lines on, or from `since_ns` after the epoch.
    pub(super) fn follow_log(
        &mut self,
        endpoint: &Endpoint,
        id: &str,
        since_ns: Option<u64>,
        expected: Expected,
    ) {
        if self.options.output.is_none()
            || self.container_logs.len() >= MOST_LOGS
            || self.container_logs.contains_key(id)
        {
            return;
        }
        let short = id.get(..12).unwrap_or(id);
        let followed = endpoint.follow_log(id, since_ns).and_then(|(client, pipe)| {
            ContainerLog::follow(client, pipe, short, expected, realtime_offset_ns())
        });
        match followed {
            Ok(log) => drop(self.container_logs.insert(id.to_owned(), log)),
            Err(error) => {
                self.warnings.push(format!("the log of container {short} is not read: {error}"));
            }
        }
    }

    /// Containers that go on without the client that started them write to nobody else: their engine keeps it.
    pub(super) fn follow_detached_logs(&mut self) {
        // What came through the command's own pipes is not to come twice.
        let through_pipes = self.output.as_ref().is_some_and(Output::has_kept);
        let (since_ns, expected) = if through_pipes {
            (now_ns(), Expected::PerhapsGone)
        } else {
            (self.tracer.target.started_ns, Expected::There)
        };
        let since_ns = since_ns.saturating_add_signed(realtime_offset_ns());
        for (id, endpoint) in self.containers_that_go_on() {
            self.follow_log(&endpoint, &id, Some(since_ns), expected);
        }
    }

    /// Known lines that have come since.
    pub(super) fn take_lines(&mut self) -> Result<(), SessionError> {
        if let Some(output) = &self.output {
            self.tracer.add_log_lines(output.take())?;
        }
        for log in self.container_logs.values() {
            self.tracer.add_log_lines(log.take())?;
        }
        Ok(())
    }

    /// Known lines that there was no room for.
    pub(super) fn lines_lost(&self) -> u64 {
        let of_containers = self.container_logs.values().map(ContainerLog::lost).sum::<u64>();
        self.output.as_ref().map_or(0, Output::lost) + of_containers
    }

    /// Takes what the command has written to its end.
    pub(super) async fn end_output(&mut self) -> Result<(), SessionError> {
        if let Some(output) = &mut self.output {
            if !output.stop().await {
                self.warnings.push(
                    "the reader of the command's output is slow: the last lines may be missing in the recording"
                        .to_owned(),
                );
            }
            self.warnings.extend(output.warnings());
        }
        let have_ended = self.tracer.is_empty();
        for log in self.container_logs.values_mut() {
            log.stop(have_ended).await;
            self.warnings.extend(log.warnings());
        }
        self.take_lines()
    }
}
