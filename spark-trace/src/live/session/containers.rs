//! Containers that the command has asked an engine for: what starts because the command asked for it is part of the target.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use spark_trace_common::engine::Client;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use super::{Session, SessionError};
use crate::{
    live::{
        now_ns, realtime_offset_ns,
        source::process,
        target::{
            Spec,
            asked::{self, Asked, Request},
            container::{SERVICE_LABEL, id_in_path},
            fits::{self, Fit, Life, Seen},
            question::{Described, Endpoint, Event, Identity, Tells},
        },
    },
    recording::{CONTAINER, Container},
};

/// The engine is asked again after this long, and then after twice as long each time, ...
const SOON: Duration = Duration::from_millis(200);
/// ... but at least this often while a client may yet start something.
const AT_LEAST: Duration = Duration::from_secs(5);

/// A client that names no container is taken to have asked for the only one like it after this long: another that has asked
/// for the same may have been quicker.
const ALONE_NS: u64 = 1_000_000_000;
/// A container that nobody could tell to be the target's after this long is taken not to be.
const UNKNOWN_NS: u64 = 30_000_000_000;
/// What is given to engines once the command has ended.
const LAST_WORD: Duration = Duration::from_secs(6);
/// Bytes of a container's id.
const ID_LEN: usize = 64;

/// One client of an engine.
struct Asker {
    pid: u32,
    life: Life,
    endpoint: Endpoint,
    /// A file that the engine writes the new container's id to, known to be this client's.
    id_file: Option<PathBuf>,
    /// Containers that it was found to have asked for.
    found: BTreeSet<String>,
    /// Nothing of it is awaited any more.
    settled: bool,
}

/// What an engine has answered.
struct Answer {
    endpoint: Endpoint,
    until_ns: u64,
    /// Containers that it was to describe.
    ids: Vec<String>,
    result: Result<(Vec<Event>, Vec<Described>), String>,
}

/// Clients, what engines have said, and what was concluded of it.
pub(super) struct Containers {
    askers: Vec<Asker>,
    seen: BTreeMap<String, Seen>,
    taken: BTreeSet<String>,
    /// Candidates, with when they appeared: nanoseconds since the epoch.
    candidates: BTreeMap<String, u64>,
    /// Containers that were gone when they were to be described.
    gone: BTreeSet<String>,
    /// Endpoints that were asked, and up to when they have told.
    told: Vec<(Endpoint, u64)>,
    failed: Vec<Endpoint>,
    under_way: usize,
    /// Something has happened since the last question.
    again: bool,
    next: Option<Instant>,
    pause: Duration,
    sender: UnboundedSender<Answer>,
    answers: UnboundedReceiver<Answer>,
    offset_ns: i64,
    /// The container that this process runs in, which is not the target.
    own: Option<String>,
    contradicted: BTreeSet<BTreeSet<String>>,
    remove: Option<PathBuf>,
    closing: Option<Instant>,
}

impl Containers {
    pub(super) fn new(own_path: Option<&str>) -> Self {
        let (sender, answers) = unbounded_channel();
        Self {
            askers: Vec::new(),
            seen: BTreeMap::new(),
            taken: BTreeSet::new(),
            candidates: BTreeMap::new(),
            gone: BTreeSet::new(),
            told: Vec::new(),
            failed: Vec::new(),
            under_way: 0,
            again: false,
            next: None,
            pause: SOON,
            sender,
            answers,
            offset_ns: realtime_offset_ns(),
            own: own_path.and_then(id_in_path).map(ToOwned::to_owned),
            contradicted: BTreeSet::new(),
            remove: None,
            closing: None,
        }
    }

    fn epoch(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }

    fn now(&self) -> u64 {
        self.epoch(now_ns())
    }

    /// Whether a client may yet start something.
    pub(super) fn is_open(&self) -> bool {
        self.askers.iter().any(|asker| !asker.settled)
    }

    /// Whether something may yet come to be known that is waited for.
    pub(super) fn is_busy(&self) -> bool {
        self.is_open() || self.lacks_descriptions()
    }

    /// When an engine is to be asked; for ever away where there is nothing to ask.
    pub(super) fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + Duration::from_hours(1))
    }

    /// Removes the file for the id that is ours.
    pub(super) fn clean_up(&mut self) {
        if let Some(file) = self.remove.take() {
            // It is not there where the container was never created.
            let _ = fs::remove_file(file);
        }
    }

    /// Waits for an answer; for ever where none is under way.
    async fn answer(&mut self) -> Option<Answer> {
        if self.under_way == 0 {
            return std::future::pending().await;
        }
        self.answers.recv().await
    }

    /// Waits until there is something to do.
    pub(super) async fn ready(&mut self) -> Option<Ready> {
        let next = self.next();
        tokio::select! {
            answer = self.answer() => answer.map(|answer| Ready(Some(Box::new(answer)))),
            () = tokio::time::sleep_until(next) => Some(Ready(None)),
        }
    }
}

/// Something that [`Session::containers_ready`] is to deal with: an answer, or that it is time to ask.
pub(super) struct Ready(Option<Box<Answer>>);

impl Session {
    /// The command is itself the client, and has a container's id written to a file of ours.
    pub(super) fn client_with_file(
        &mut self,
        client: Client,
        request: Request,
        pid: u32,
        file: &Path,
    ) -> Result<(), SessionError> {
        let Some(identity) = Identity::of(pid).or_else(Identity::own) else { return Ok(()) };
        let endpoint = Endpoint::new(client.engine, &request.global, &process::environment(pid), identity);
        let life = Life { request, began: self.containers.now(), ended: None, working: None, project: None };
        self.containers.remove = Some(file.to_owned());
        self.add_asker(Asker {
            pid,
            life,
            endpoint,
            id_file: Some(file.to_owned()),
            found: BTreeSet::new(),
            settled: false,
        })
    }

    /// A process of the target has become a client of an engine.
    pub(super) fn client_began(&mut self, pid: u32, client: Client, at_ns: u64) -> Result<(), SessionError> {
        let argv = process::argv(pid);
        let environment = process::environment(pid);
        let request = asked::request(client.comm, &argv);
        let identity = Identity::of(pid);
        let began = self.containers.epoch(at_ns);
        // The same process again, by way of a script of the same name or of another client.
        self.containers.askers.retain(|asker| asker.pid != pid || asker.life.ended.is_some());
        let (Some(identity), false) = (identity, argv.is_empty()) else {
            if self.containers.askers.is_empty() {
                self.warnings.push(format!(
                    "{} (pid {pid}) ended before its command line could be read: a container that it started is not part of this \
                     recording",
                    client.comm
                ));
            }
            return self.judge();
        };
        let endpoint = Endpoint::new(client.engine, &request.global, &environment, identity);
        let working = fs::read_link(format!("/proc/{pid}/cwd")).ok();
        let project = environment.get("COMPOSE_PROJECT_NAME").cloned();
        let life = Life { request, began, ended: None, working, project };
        self.add_asker(Asker { pid, life, endpoint, id_file: None, found: BTreeSet::new(), settled: false })
    }

    fn add_asker(&mut self, mut asker: Asker) -> Result<(), SessionError> {
        asker.settled = asker.life.request.asked == Asked::Nothing;
        if !asker.settled && asker.endpoint.is_remote() {
            asker.settled = true;
            self.warnings.push(
                "a container engine on another machine was asked for a container: it is not part of this recording".to_owned(),
            );
        }
        if !asker.settled {
            self.tracer.await_containers()?;
            self.containers.pause = SOON;
            self.containers.next = Some(Instant::now() + SOON);
        }
        self.containers.askers.push(asker);
        self.judge()
    }

    /// A client has ended.
    pub(super) fn client_ended(&mut self, pid: u32, at_ns: u64) -> Result<(), SessionError> {
        let ended = self.containers.epoch(at_ns);
        let living = |asker: &&mut Asker| asker.pid == pid && asker.life.ended.is_none();
        if let Some(asker) = self.containers.askers.iter_mut().find(living) {
            asker.life.ended = Some(ended);
            self.containers.again = true;
        }
        self.judge()
    }

    /// A container's cgroup has appeared that may be the target's.
    pub(super) fn container_appeared(&mut self, id: String) -> Result<(), SessionError> {
        self.containers.again = true;
        if self.containers.taken.contains(&id) {
            self.take(&id)?;
        } else {
            let now = self.containers.now();
            self.containers.candidates.entry(id).or_insert(now);
        }
        self.judge()
    }

    /// A process of the command is in this container's cgroup: an engine without a daemon has started it there.
    pub(super) fn container_entered(&mut self, id: String) -> Result<(), SessionError> {
        if self.containers.own.as_ref() == Some(&id) {
            return Ok(());
        }
        for asker in &mut self.containers.askers {
            if asker.endpoint.tells() == Tells::Nothing && asker.life.ended.is_none() {
                asker.found.insert(id.clone());
            }
        }
        self.take(&id)?;
        self.containers.again = true;
        self.judge()
    }

    /// The command has ended: engines get a last word.
    pub(super) fn close_containers(&mut self) -> Result<(), SessionError> {
        let now = self.containers.now();
        for asker in self.containers.askers.iter_mut().filter(|asker| asker.life.ended.is_none()) {
            asker.life.ended = Some(now);
        }
        self.containers.closing = Some(Instant::now() + LAST_WORD);
        self.containers.again = true;
        self.judge()
    }

    pub(super) fn containers_ready(&mut self, ready: Option<Ready>) -> Result<(), SessionError> {
        match ready {
            Some(Ready(Some(answer))) => self.take_answer(*answer),
            _ => self.containers.again = true,
        }
        self.judge()
    }

    fn take_answer(&mut self, answer: Answer) {
        let containers = &mut self.containers;
        containers.under_way -= 1;
        match answer.result {
            Ok((events, described)) => {
                for event in events {
                    event.tell(&mut containers.seen);
                }
                let described_ids: BTreeSet<String> = described.iter().map(|d| d.id().to_owned()).collect();
                containers.gone.extend(answer.ids.into_iter().filter(|id| !described_ids.contains(id)));
                for described in described {
                    described.tell(&mut containers.seen);
                }
                if answer.endpoint.tells() == Tells::Descriptions {
                    for id in described_ids {
                        containers.appeared_now(&id);
                    }
                }
            }
            Err(reason) => {
                let needed = |asker: &Asker| asker.endpoint == answer.endpoint && asker.id_file.is_none();
                if !containers.failed.contains(&answer.endpoint) && containers.askers.iter().any(needed) {
                    self.warnings.push(format!(
                        "{} cannot be asked which containers the command has started ({reason}): they are not part of this \
                         recording; use --container NAME, or put `{} run` directly after --",
                        answer.endpoint.engine, answer.endpoint.engine
                    ));
                }
                containers.failed.push(answer.endpoint.clone());
            }
        }
        match containers.told.iter_mut().find(|(endpoint, _)| *endpoint == answer.endpoint) {
            Some((_, until)) => *until = (*until).max(answer.until_ns),
            None => containers.told.push((answer.endpoint, answer.until_ns)),
        }
    }

    /// Concludes what can be concluded, and asks where that is not enough.
    fn judge(&mut self) -> Result<(), SessionError> {
        self.take_from_files()?;
        self.take_named()?;
        self.take_alike()?;
        self.settle();
        self.drop_foreign()?;
        self.describe();
        if self.containers.is_open() || self.containers.lacks_descriptions() {
            self.ask();
        } else {
            self.containers.next = None;
        }
        if !self.containers.is_open() {
            self.containers.candidates.clear();
            // Where clients were counted that asked for nothing the kernel side is to select nothing new either.
            self.tracer.await_no_more()?;
            self.containers.clean_up();
        }
        Ok(())
    }

    fn take(&mut self, id: &str) -> Result<(), SessionError> {
        self.tracer.take_container(id)?;
        self.containers.candidates.remove(id);
        self.containers.taken.insert(id.to_owned());
        Ok(())
    }

    /// Ids in files that engines wrote for clients.
    fn take_from_files(&mut self) -> Result<(), SessionError> {
        let mut found = Vec::new();
        for (at, asker) in self.containers.askers.iter().enumerate().filter(|(_, asker)| !asker.settled) {
            if let Some(id) = asker.id_file.as_deref().and_then(id_in_file) {
                found.push((at, id));
            }
        }
        for (at, id) in found {
            self.containers.askers[at].found.insert(id.clone());
            self.take(&id)?;
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
                self.containers.askers[at].found.insert(id.clone());
                self.take(&id)?;
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
        let mut taken = Vec::new();
        for id in alike.ours {
            let created =
                containers.seen.get(&id).and_then(|seen| seen.created.first().copied()).unwrap_or(now);
            let mut fit = containers.askers.iter().enumerate();
            let fits = |(at, asker): (usize, &Asker)| {
                (asker.life.fit(&id, &containers.seen[&id]) == Fit::Alike).then_some(at)
            };
            if let Some(at) = fit.find_map(fits)
                && (containers.askers[at].life.ended.is_some() || now.saturating_sub(created) >= ALONE_NS)
            {
                taken.push((at, id));
            }
        }
        for (at, id) in taken {
            self.containers.askers[at].found.insert(id.clone());
            if !self.containers.taken.contains(&id) {
                self.take(&id)?;
            }
        }
        for group in alike.unclear {
            if !group.is_disjoint(&self.containers.taken)
                && self.containers.contradicted.insert(group.clone())
            {
                self.warnings.push(
                    self.unclear(&group, "one of them is part of this recording, which may be the wrong one"),
                );
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
            // It has asked for one, which has begun.
            let one = asker.life.request.asked == Asked::New && asker.found.iter().any(runs);
            let ended = asker.life.ended.is_some_and(|ended| {
                late || asker.id_file.is_some()
                    || asker.endpoint.tells() == Tells::Nothing
                    || self.containers.told.iter().any(|(e, until)| *e == asker.endpoint && *until >= ended)
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
        if !group.is_empty() && self.containers.contradicted.insert(group.clone()) {
            self.warnings.push(self.unclear(&group, "none of them is part of this recording"));
        }
    }

    fn unclear(&self, group: &BTreeSet<String>, so: &str) -> String {
        let names: Vec<_> = group.iter().map(|id| self.containers.called(id)).collect();
        format!(
            "containers {} were started alike and at the same time, by the command and by others: {so}; choose with --container \
             NAME, give the container a --name, or put `docker run` directly after --",
            names.join(" and ")
        )
    }

    /// Candidates that are not what any client has asked for.
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

    /// Tells the recording what is known of the target's containers.
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

    /// Says what the target was in the end. A command that has only asked for containers is not part of it: they are.
    pub(super) fn decide_kind(&mut self) -> Result<(), SessionError> {
        if !matches!(self.options.spec, Spec::Command { .. }) {
            return Ok(());
        }
        let any = self.tracer.target.cgroups.iter().any(|cgroup| cgroup.root && cgroup.container.is_some());
        let direct = self.tracer.target.kind == CONTAINER;
        if direct && !any {
            self.warnings
                .push("no container was seen to start: this recording has no cgroup plane".to_owned());
        }
        let Some(leaf) = self.leaf.as_ref().map(|leaf| leaf.id).filter(|_| any) else { return Ok(()) };
        let clients = self.containers.askers.iter().map(|asker| asker.pid).collect();
        if self.tracer.only_asked(leaf, &clients) {
            self.tracer.leave_out(leaf)?;
            self.tracer.target.kind = CONTAINER.to_owned();
        }
        Ok(())
    }

    fn ask(&mut self) {
        let containers = &mut self.containers;
        let due = containers.next.is_some_and(|next| Instant::now() >= next);
        if due {
            containers.pause = (containers.pause * 2).min(AT_LEAST);
        }
        if containers.next.is_none_or(|_| due) {
            containers.next = Some(Instant::now() + containers.pause);
        }
        if containers.under_way > 0 || !(containers.again || due) {
            return;
        }
        containers.again = false;
        for (endpoint, since, ids) in containers.questions() {
            containers.under_way += 1;
            let sender = containers.sender.clone();
            let until_ns = containers.now();
            tokio::spawn(async move {
                let result = question(&endpoint, since, until_ns, &ids).await.map_err(|e| e.to_string());
                // Nobody waits for it any more where the trace has ended.
                let _ = sender.send(Answer { endpoint, until_ns, ids, result });
            });
        }
    }
}

impl Containers {
    /// What each engine is to be asked: since when, and which containers it is to describe.
    fn questions(&self) -> Vec<(Endpoint, u64, Vec<String>)> {
        let mut questions: Vec<(Endpoint, u64, Vec<String>)> = Vec::new();
        for asker in &self.askers {
            let open = !asker.settled && asker.id_file.is_none();
            let undescribed = |id: &&String| {
                !self.gone.contains(*id) && self.seen.get(*id).is_none_or(|seen| seen.command.is_none())
            };
            let mut ids: BTreeSet<String> = asker.found.iter().filter(undescribed).cloned().collect();
            if open && asker.life.request.asked == Asked::New {
                // Only those whose image it names: its events tell that without being asked.
                let like = self
                    .seen
                    .iter()
                    .filter(|(id, seen)| undescribed(id) && asker.life.fit(id, seen) == Fit::Alike);
                ids.extend(like.map(|(id, _)| id.clone()));
            }
            if open && asker.endpoint.tells() == Tells::Descriptions {
                ids.extend(self.candidates.keys().filter(undescribed).cloned());
            }
            let tells = open && asker.endpoint.tells() == Tells::Events;
            if self.failed.contains(&asker.endpoint) || !tells && ids.is_empty() {
                continue;
            }
            match questions.iter_mut().find(|(endpoint, ..)| *endpoint == asker.endpoint) {
                Some((_, since, more)) => {
                    *since = (*since).min(asker.life.began);
                    more.extend(ids);
                }
                None => questions.push((asker.endpoint.clone(), asker.life.began, ids.into_iter().collect())),
            }
        }
        questions
    }

    /// Whether there are containers of the target that nobody has described.
    fn lacks_descriptions(&self) -> bool {
        self.closing.is_none_or(|limit| Instant::now() < limit)
            && self.questions().iter().any(|(_, _, ids)| !ids.is_empty())
    }

    /// What engines tell of no creation is taken to be created as its cgroup is.
    fn appeared_now(&mut self, id: &str) {
        if let (Some(seen), Some(appeared)) = (self.seen.get_mut(id), self.candidates.get(id)) {
            seen.created = vec![*appeared];
            seen.started = vec![*appeared];
        }
    }

    /// A container as a user knows it.
    fn called(&self, id: &str) -> String {
        let short = id.get(..12).unwrap_or(id);
        match self.seen.get(id).and_then(|seen| seen.name.as_ref()) {
            Some(name) => format!("{name} ({short})"),
            None => short.to_owned(),
        }
    }
}

async fn question(
    endpoint: &Endpoint,
    since: u64,
    until: u64,
    ids: &[String],
) -> std::io::Result<(Vec<Event>, Vec<Described>)> {
    let events = match endpoint.tells() {
        Tells::Events => endpoint.events(since, until).await?,
        Tells::Descriptions | Tells::Nothing => Vec::new(),
    };
    Ok((events, endpoint.inspect_all(ids).await))
}

/// The id in a file that an engine writes it to, once it is whole. The file's name may be the traced program's choice: only a
/// regular file is read, and no more than an id.
fn id_in_file(path: &Path) -> Option<String> {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(ID_LEN as u64 + 1).read_to_string(&mut text).ok()?;
    let id = text.trim();
    (id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}
