//! What a recording says of itself: hooks, losses, warnings, and what it cost.

use super::{Session, SessionError, io_error};
use crate::{not_opened, own_usage, unwind::Unwinder};
use spark_trace_common::capacities::BESIDE;
use spark_trace_recording::units;
use spark_trace_recording::{Cost, Health, Loss, ReaderCost, Readings, SKIPPED, journal::Entry};

/// What readers took that ran beside each other.
fn sum(left: Option<ReaderCost>, right: Option<ReaderCost>) -> Option<ReaderCost> {
    let (Some(one), Some(other)) = (left, right) else { return left.or(right) };
    Some(ReaderCost {
        cpu_ns: one.cpu_ns + other.cpu_ns,
        rss_peak: one.rss_peak.zip(other.rss_peak).map(|(one, other)| one + other),
    })
}

impl Session {
    /// What is to be said of other spark-traces that have turned up.
    pub(super) fn note_beside(&mut self) -> Result<Option<String>, SessionError> {
        let mut new = self.tracer.object.beside()?;
        new.retain(|pid| !self.beside.contains(pid));
        let most = BESIDE as usize;
        let room = most.saturating_sub(self.beside.len());
        if new.is_empty() || room == 0 {
            return Ok(None);
        }
        if new.len() >= room {
            new.truncate(room);
            self.warnings
                .push(format!("{most} other spark-traces ran beside this one: later ones are not listed"));
        }
        self.beside.extend(&new);
        let pids: Vec<String> = new.iter().map(|pid| format!("pid {pid}")).collect();
        let notice = format!(
            "another spark-trace ran beside this one ({}): neither records the other, but programs paid for the hooks of both",
            pids.join(", ")
        );
        self.warnings.push(notice.clone());
        Ok(Some(notice))
    }

    pub(super) fn add_health_and_cost(&mut self, nvml: Option<Readings>) -> Result<(), SessionError> {
        let hooks = self.tracer.object.hook_rows(Some(&self.statistics));
        let mut losses = self.tracer.object.losses()?;
        let own = [
            ("undecoded_events", self.tracer.losses.undecoded_events),
            ("queries", self.tracer.queries_lost()),
            ("cuda_objects", self.tracer.collector.cuda.unreadable),
            ("contexts", self.tracer.losses.contexts),
            ("awaiting_containers", self.tracer.refused_while_waiting()),
            ("stacks", self.tracer.stacks.refused()),
            ("mapped_files", self.tracer.stacks.files_refused()),
            ("file_rows", self.tracer.collector.file_rows_lost),
            ("target_cgroups", self.tracer.losses.cgroups),
            ("readings", self.tracer.readings_lost()),
            ("walks", self.walks_not_made),
            ("open_files", not_opened()),
            ("log_lines", self.lines_lost()),
            (SKIPPED, hooks.iter().filter_map(|h| h.lost).sum()),
        ];
        let own = own.into_iter().filter(|(_, count)| *count > 0);
        losses.extend(own.map(|(what, count)| Loss { what: what.to_owned(), count }));
        let bpf_run_time_ns = hooks.iter().filter_map(|h| h.run_time_ns).reduce(|a, b| a + b);
        let ambiguous = self.tracer.collector.cuda.ambiguous_contexts;
        let mut warnings = self.warnings.clone();
        if not_opened() > 0 {
            warnings.push(format!(
                "{} could not be opened, because too many were open (EMFILE): cgroups and processes are missing; raise \
                 the hard limit (`ulimit -Hn`)",
                units::count(usize::try_from(not_opened()).unwrap_or(usize::MAX), "file", "files")
            ));
        }
        if ambiguous > 0 {
            warnings.push(format!(
                "{ambiguous} CUDA contexts ended while others of their process lived: their allocations count as in use until the process ends"
            ));
        }
        if self.tracer.losses.outside > 0 {
            warnings.push(format!(
                "there was no time to look at {} processes outside of the target at once: `kv` may not name the largest",
                self.tracer.losses.outside
            ));
        }
        if self.tracer.losses.unserved_queries > 0 {
            let queries = usize::try_from(self.tracer.losses.unserved_queries).unwrap_or(usize::MAX);
            warnings.push(format!(
                "{} of free memory came while processes outside of the target were read for another: `kv` may not name who \
                 had memory then",
                units::count(queries, "query", "queries")
            ));
        }
        warnings.extend(self.tracer.stacks.missing_names());
        warnings.extend(self.tracer.pythons.warnings());
        warnings.extend(self.tracer.libraries.warning());
        warnings.extend(self.tracer.unwinder.as_ref().and_then(Unwinder::warning));
        let (gaps, device_gaps) = self.tracer.gaps();
        let health = Health {
            lost_total: losses.iter().map(|l| l.count).sum(),
            losses,
            beside: self.beside.clone(),
            hooks,
            libraries: Vec::new(),
            sources: vec![self.nvml.machine().verdict.clone()],
            warnings,
            gaps,
            device_gaps,
            // The journal knows.
            reduced: None,
            unwinding: self.tracer.unwinder.as_ref().map(Unwinder::counts),
            complete: true,
        };
        let (agent_cpu_ns, agent_rss_peak) = own_usage();
        let cost = Cost {
            agent_cpu_ns,
            agent_rss_peak,
            bpf_run_time_ns,
            bpf_memory: self.tracer.object.memory(),
            nvml,
            reader: [
                self.tracer.stacks.reader_cost(),
                self.tracer.unwinder.as_ref().and_then(Unwinder::cost),
                self.tracer.pythons.cost(),
            ]
            .into_iter()
            .fold(None, sum),
        };
        self.tracer.journal.add(Entry::Health(health)).map_err(io_error("write the journal"))?;
        self.tracer.journal.add(Entry::Cost(cost)).map_err(io_error("write the journal"))
    }
}
