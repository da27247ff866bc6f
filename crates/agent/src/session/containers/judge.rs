//! What is concluded of what clients have requested and engines have said.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Asker;
use crate::{
    session::{Session, SessionError},
    subject::{
        Spec,
        client_args::Intent,
        container::SERVICE_LABEL,
        fits::{self, Fit, Life, Seen},
        question::{Endpoint, Offers},
    },
};
use spark_trace_recording::{Container, TargetKind};

/// A client that names no container is taken to have requested the only one like it after this long: another that has requested
/// the same may have been quicker.
const ALONE_NS: u64 = 1_000_000_000;
/// A container that is not known to be the target's after this long is taken not to be.
const UNKNOWN_NS: u64 = 30_000_000_000;

impl Session {
    /// Concludes what can be concluded, and queries engines where that is not enough.
    pub(super) fn judge(&mut self) -> Result<(), SessionError> {
        self.take_from_files()?;
        self.take_named()?;
        self.take_alike()?;
        self.settle();
        self.drop_foreign()?;
        self.describe();
        if self.containers.is_open() || self.containers.lacks_descriptions() {
            self.query_engines();
        } else {
            self.containers.next = None;
        }
        if !self.containers.is_open() {
            self.containers.candidates.clear();
            // Where clients were counted that requested nothing the kernel side is to select nothing new either.
            self.tracer.await_no_more()?;
            self.containers.clean_up();
        }
        if self.containers.closing.is_some() {
            self.follow_detached_logs();
        }
        Ok(())
    }

    /// Containers of the target that run without the command, with the engine that knows them.
    pub(crate) fn containers_that_go_on(&self) -> Vec<(String, Endpoint)> {
        let cgroups = self.tracer.target.cgroups.iter().filter(|cgroup| cgroup.removed_ns.is_none());
        let ids = cgroups.filter_map(|cgroup| cgroup.container.as_ref());
        let known = ids.filter_map(|id| {
            let asker = self.containers.askers.iter().find(|asker| asker.found.contains(id))?;
            Some((id.clone(), asker.endpoint.clone()))
        });
        known.collect()
    }

    pub(super) fn take(&mut self, id: &str) -> Result<(), SessionError> {
        self.tracer.take_container(id)?;
        self.containers.candidates.remove(id);
        self.containers.taken.insert(id.to_owned());
        Ok(())
    }

    /// Ids in files that engines wrote for clients.
    fn take_from_files(&mut self) -> Result<(), SessionError> {
        let mut found = Vec::new();
        for (at, asker) in self.containers.askers.iter().enumerate().filter(|(_, asker)| !asker.settled) {
            if let Some(id) = asker.id_file.as_ref().and_then(|file| file.id()) {
                found.push((at, id));
            }
        }
        for (at, id) in found {
            if self.containers.askers[at].found.insert(id.clone()) {
                self.take(&id)?;
            }
        }
        Ok(())
    }

    fn take_named(&mut self) -> Result<(), SessionError> {
        for at in 0..self.containers.askers.len() {
            let asker = &self.containers.askers[at];
            if asker.settled || asker.id_file.is_some() {
                continue;
            }
            for id in fits::named(&asker.life, &self.containers.seen) {
                // Its cgroup, if it is made later, is taken as it appears.
                if self.containers.askers[at].found.insert(id.clone()) {
                    self.take(&id)?;
                }
            }
        }
        Ok(())
    }

    fn take_alike(&mut self) -> Result<(), SessionError> {
        let now = self.containers.now();
        let containers = &self.containers;
        let lives: Vec<&Life> = containers
            .askers
            .iter()
            .filter(|asker| asker.id_file.is_none())
            .map(|asker| &asker.life)
            .collect();
        // Those that a client names are that client's.
        let named: BTreeSet<String> =
            lives.iter().flat_map(|life| fits::named(life, &containers.seen)).collect();
        let seen = containers.seen.iter().filter(|(id, _)| !named.contains(*id));
        let seen: BTreeMap<String, Seen> = seen.map(|(id, seen)| (id.clone(), seen.clone())).collect();
        let alike = fits::alike(&lives, &seen);
        for id in alike.ours {
            let created = self.containers.seen.get(&id).and_then(|seen| seen.created.first().copied());
            let Some(at) = self.containers.asker_of(&id) else { continue };
            // Another client that has requested the same may have been quicker.
            let alone = now.saturating_sub(created.unwrap_or(now)) >= ALONE_NS;
            if self.containers.askers[at].life.ended.is_some() || alone {
                self.containers.askers[at].found.insert(id.clone());
                if !self.containers.taken.contains(&id) {
                    self.take(&id)?;
                }
            }
        }
        for group in alike.unclear {
            if !group.is_disjoint(&self.containers.taken)
                && self.containers.contradicted.insert(group.clone())
            {
                self.warnings.push(self.unclear(
                    &group,
                    "some of them are missing in this recording, and others may be in it by mistake",
                ));
            }
        }
        Ok(())
    }

    /// Clients of which nothing is awaited any more.
    fn settle(&mut self) {
        let late = self.containers.closing.is_some_and(|limit| Instant::now() >= limit);
        for at in 0..self.containers.askers.len() {
            let asker = &self.containers.askers[at];
            if asker.settled {
                continue;
            }
            let runs = |id: &String| {
                let cgroups = &self.tracer.target.cgroups;
                cgroups.iter().any(|cgroup| cgroup.container.as_ref() == Some(id))
            };
            // It has requested one, which has begun.
            let one = asker.life.request.intent == Intent::New && asker.found.iter().any(runs);
            let ended = asker.life.ended.is_some_and(|ended| {
                late || asker.id_file.is_some()
                    || asker.endpoint.offers() == Offers::Nothing
                    || self
                        .containers
                        .answered
                        .iter()
                        .any(|(e, until)| *e == asker.endpoint && *until >= ended)
            });
            if one || ended {
                self.containers.askers[at].settled = true;
                if ended && self.containers.askers[at].found.is_empty() {
                    self.warn_of_unknown(at);
                }
            }
        }
    }

    /// A client has ended, and which container it started is not known.
    fn warn_of_unknown(&mut self, at: usize) {
        let asker = &self.containers.askers[at];
        let fits = self.containers.seen.iter().filter(|(id, seen)| asker.life.fit(id, seen) == Fit::Alike);
        let group: BTreeSet<String> = fits.map(|(id, _)| id.clone()).collect();
        // Each of as many clients has one of them.
        let theirs = group.is_subset(&self.containers.taken);
        if !group.is_empty() && !theirs && self.containers.contradicted.insert(group.clone()) {
            self.warnings.push(self.unclear(&group, "none of them is part of this recording"));
        }
    }

    fn unclear(&self, group: &BTreeSet<String>, so: &str) -> String {
        let names: Vec<_> = group.iter().map(|id| self.containers.called(id)).collect();
        format!(
            "the command and other programs started containers {} in the same way at the same time: {so}; use --container NAME, give the container a --name, or put `docker run` directly after --",
            names.join(" and ")
        )
    }

    /// Candidates that are not what any client has requested.
    fn drop_foreign(&mut self) -> Result<(), SessionError> {
        let containers = &self.containers;
        let now = containers.now();
        let open: Vec<&Asker> = containers.askers.iter().filter(|asker| !asker.settled).collect();
        let foreign = |(id, appeared): (&String, &u64)| {
            let by_engine = open.iter().all(|asker| match (&asker.id_file, containers.seen.get(id)) {
                // Its id is written before its cgroup is made.
                (Some(_), _) => !asker.found.is_empty(),
                (None, Some(seen)) => !seen.started.is_empty() && asker.life.fit(id, seen) == Fit::No,
                (None, None) => false,
            });
            let unknown = now.saturating_sub(*appeared) > UNKNOWN_NS;
            (by_engine || unknown).then(|| id.clone())
        };
        let foreign: BTreeSet<String> = containers.candidates.iter().filter_map(foreign).collect();
        if !foreign.is_empty() {
            self.containers.candidates.retain(|id, _| !foreign.contains(id));
            self.tracer.drop_containers(|id| foreign.contains(id))?;
        }
        Ok(())
    }

    /// Writes into the recording what is known of the target's containers.
    fn describe(&mut self) {
        for id in &self.containers.taken {
            let seen = self.containers.seen.get(id).cloned().unwrap_or_default();
            let asker = self.containers.askers.iter().find(|asker| asker.found.contains(id));
            let engine = asker.map_or("docker", |asker| asker.endpoint.engine).to_owned();
            let service = seen.labels.get(SERVICE_LABEL).cloned();
            let (name, image, image_id) = (seen.name, seen.image, seen.image_id);
            let container = Container { engine, id: id.clone(), name, image, image_id, service };
            self.tracer.target.take_container(container);
        }
    }

    /// Says what the target was in the end. A command that has only requested containers is not part of it: they are.
    /// Returns the cgroup that is left out.
    pub(crate) fn decide_kind(&mut self) -> Result<Option<u64>, SessionError> {
        if !matches!(self.options.spec, Spec::Command { .. }) {
            return Ok(None);
        }
        let any = self.tracer.target.cgroups.iter().any(|cgroup| cgroup.root && cgroup.container.is_some());
        let direct = self.tracer.target.kind == TargetKind::Container;
        if direct && !any {
            self.warnings.push("no container started: this recording has no cgroup plane".to_owned());
        }
        let Some(leaf) = self.leaf.as_ref().map(|leaf| leaf.id).filter(|_| any) else {
            return Ok(None);
        };
        let since = |asker: &Asker| asker.life.began.saturating_add_signed(-self.containers.offset_ns);
        let clients = self.containers.askers.iter().map(|asker| (asker.pid, since(asker))).collect();
        if self.tracer.only_requested(leaf, &clients) {
            self.tracer.leave_out(leaf)?;
            self.tracer.target.kind = TargetKind::Container.into();
            return Ok(Some(leaf));
        }
        Ok(None)
    }
}
