//! Containers that the command has requested of an engine: what starts because the command requested it is part of the target.

mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::Duration,
};

use spark_trace_common::engine::Client;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use super::{Session, SessionError};
use crate::{
    now_ns, realtime_offset_ns,
    source::process,
    subject::{
        client_args::{self, Intent, Request},
        container::id_in_path,
        fits::{Fit, Life, Seen},
        id_file::IdFile,
        question::{Described, Endpoint, Event, Identity, Offers},
    },
};

/// The engine is queried again after this long, and then after twice as long each time, ...
const SOON: Duration = Duration::from_millis(200);
/// ... but at least this often while a client may yet start something.
const AT_LEAST: Duration = Duration::from_secs(5);

/// What is given to engines once the command has ended.
const LAST_WORD: Duration = Duration::from_secs(6);

/// One client of an engine.
struct Asker {
    pid: u32,
    life: Life,
    endpoint: Endpoint,
    /// A file that the engine writes the new container's id to, known to be this client's.
    id_file: Option<Arc<IdFile>>,
    /// Containers that it was found to have requested.
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
    /// Endpoints that were queried, and up to when they have answered.
    answered: Vec<(Endpoint, u64)>,
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
    remove: Option<Arc<IdFile>>,
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
            answered: Vec::new(),
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

    /// When an engine is to be queried; for ever away where there is nothing to query.
    pub(super) fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + Duration::from_hours(1))
    }

    /// Removes the file for the id that is ours.
    pub(super) fn clean_up(&mut self) {
        if let Some(file) = self.remove.take() {
            file.remove();
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

/// Something that [`Session::containers_ready`] is to deal with: an answer, or that it is time for a query.
pub(super) struct Ready(Option<Box<Answer>>);

impl Session {
    /// The command is itself the client, and has a container's id written to a file of ours.
    pub(super) fn client_with_file(
        &mut self,
        client: Client,
        request: Request,
        pid: u32,
        file: IdFile,
    ) -> Result<(), SessionError> {
        let file = Arc::new(file);
        self.containers.remove = Some(Arc::clone(&file));
        let Some(identity) = Identity::of(pid).or_else(Identity::own) else { return Ok(()) };
        let endpoint = Endpoint::new(client.engine, &request.global, &process::environment(pid), identity);
        let life = Life { request, began: self.containers.now(), ended: None, working: None, project: None };
        self.add_asker(Asker {
            pid,
            life,
            endpoint,
            id_file: Some(file),
            found: BTreeSet::new(),
            settled: false,
        })
    }

    /// A process of the target has become a client of an engine.
    pub(super) fn client_began(&mut self, pid: u32, client: Client, at_ns: u64) -> Result<(), SessionError> {
        let argv = process::arguments(pid);
        let environment = process::environment(pid);
        let request = client_args::request(client.comm, &argv);
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
        asker.settled = asker.life.request.intent == Intent::Nothing;
        if !asker.settled && asker.endpoint.is_remote() {
            asker.settled = true;
            self.warnings.push(
                "the command started a container on another machine: it is not part of this recording"
                    .to_owned(),
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
            if asker.endpoint.offers() == Offers::Nothing && asker.life.ended.is_none() {
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
                    event.add_to(&mut containers.seen);
                }
                let described_ids: BTreeSet<String> = described.iter().map(|d| d.id().to_owned()).collect();
                containers.gone.extend(answer.ids.into_iter().filter(|id| !described_ids.contains(id)));
                for described in described {
                    described.add_to(&mut containers.seen);
                }
                if answer.endpoint.offers() == Offers::Descriptions {
                    for id in described_ids {
                        containers.appeared_now(&id);
                    }
                }
            }
            Err(reason) => {
                let needed = |asker: &Asker| asker.endpoint == answer.endpoint && asker.id_file.is_none();
                if !containers.failed.contains(&answer.endpoint) && containers.askers.iter().any(needed) {
                    self.warnings.push(format!(
                        "{} does not answer which containers the command started ({reason}): they are not part of this \
                         recording; use --container NAME, or put `{} run` directly after --",
                        answer.endpoint.engine, answer.endpoint.engine
                    ));
                }
                containers.failed.push(answer.endpoint.clone());
            }
        }
        match containers.answered.iter_mut().find(|(endpoint, _)| *endpoint == answer.endpoint) {
            Some((_, until)) => *until = (*until).max(answer.until_ns),
            None => containers.answered.push((answer.endpoint, answer.until_ns)),
        }
    }

    fn query_engines(&mut self) {
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
    /// The query to each engine: since when, and which containers it is to describe.
    fn questions(&self) -> Vec<(Endpoint, u64, Vec<String>)> {
        let mut questions: Vec<(Endpoint, u64, Vec<String>)> = Vec::new();
        for asker in &self.askers {
            let open = !asker.settled && asker.id_file.is_none();
            let undescribed = |id: &&String| {
                !self.gone.contains(*id) && self.seen.get(*id).is_none_or(|seen| seen.command.is_none())
            };
            let mut ids: BTreeSet<String> = asker.found.iter().filter(undescribed).cloned().collect();
            if open && asker.life.request.intent == Intent::New {
                // Only those whose image it names: its events say that without a query.
                let like = self
                    .seen
                    .iter()
                    .filter(|(id, seen)| undescribed(id) && asker.life.fit(id, seen) == Fit::Alike);
                ids.extend(like.map(|(id, _)| id.clone()));
            }
            if open && asker.endpoint.offers() == Offers::Descriptions {
                ids.extend(self.candidates.keys().filter(undescribed).cloned());
            }
            let has_events = open && asker.endpoint.offers() == Offers::Events;
            if self.failed.contains(&asker.endpoint) || !has_events && ids.is_empty() {
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

    /// The client that a container like what it has requested is put down to: one that has none yet, if there is one.
    fn asker_of(&self, id: &str) -> Option<usize> {
        let seen = self.seen.get(id)?;
        let fits = |asker: &&Asker| asker.id_file.is_none() && asker.life.fit(id, seen) == Fit::Alike;
        let place = |which: &dyn Fn(&Asker) -> bool| self.askers.iter().position(|a| fits(&a) && which(a));
        place(&|a| a.found.contains(id))
            .or_else(|| place(&|a| a.found.is_empty()))
            .or_else(|| place(&|_| true))
    }

    /// A container of whose creation no engine says anything is taken to be created as its cgroup is.
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
    let events = match endpoint.offers() {
        Offers::Events => endpoint.events(since, until).await?,
        Offers::Descriptions | Offers::Nothing => Vec::new(),
    };
    Ok((events, endpoint.inspect_all(ids).await))
}
