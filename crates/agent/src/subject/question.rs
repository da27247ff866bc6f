//! Querying a container engine for what has happened to its containers, as the client requested them, and with programs of the
//! machine's own: nothing of the traced program is run here.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, PipeReader},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::process::{Child, Command};
use tracing::debug;

use super::{container::SERVICE_LABEL, fits::Seen};
use spark_trace_host::engine::{TRUSTED, in_path, only_root_writes, trusted};
use spark_trace_host::invoker::{Invoker, become_id};
use spark_trace_recording::Container;

/// An engine that does not answer in this time counts as one that cannot be reached.
const LIMIT: Duration = Duration::from_secs(5);

/// Lines of a container's log that are looked through, of those that are there when it begins to be followed: an engine's
/// start is among them unless it has served for long.
const MOST_EARLIER_LINES: u32 = 10_000;

/// Variables by which a client finds its engine.
const ENVIRONMENT: &[&str] = &[
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "XDG_RUNTIME_DIR",
    "CONTAINER_HOST",
    "CONTAINERD_ADDRESS",
    "CONTAINERD_NAMESPACE",
];
/// Those of them that may name a socket.
const SOCKETS: &[&str] = &["DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS"];
/// Those that name directories with programs in them (plug-ins): for root only where nobody else can write there.
const DIRECTORIES: &[&str] = &["HOME", "DOCKER_CONFIG"];

/// Global flags that say which engine, and that make it run nothing.
const FLAGS: &[&str] = &[
    "-H",
    "--host",
    "-c",
    "--context",
    "--root",
    "--runroot",
    "--url",
    "--connection",
    "-a",
    "--address",
    "-n",
    "--namespace",
];

/// What an engine offers to find out which containers a client has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    /// What has happened, also before the query.
    Events,
    /// Only what containers are like whose cgroups have appeared.
    Descriptions,
    /// Nothing: containers are descendants of their client.
    Nothing,
}

const OFFERS: &[(&str, Offers)] =
    &[("docker", Offers::Events), ("nerdctl", Offers::Descriptions), ("podman", Offers::Nothing)];

/// Who a process acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Identity {
    /// This process's.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The user's who called sudo.
    pub fn of_invoker(invoker: &Invoker) -> Self {
        Self { uid: invoker.uid, gid: invoker.gid, groups: invoker.groups() }
    }

    /// A process's, by the kernel.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved, file system.
        let effective = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
        Some(Self {
            uid: effective(line("Uid:")?)?,
            gid: effective(line("Gid:")?)?,
            groups: line("Groups:")?.split_whitespace().filter_map(|group| group.parse().ok()).collect(),
        })
    }
}

/// An engine as a client reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub engine: &'static str,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    identity: Identity,
}

impl Endpoint {
    /// By the client's global words, its environment, and who it acts as.
    pub fn new(
        engine: &'static str,
        global: &[String],
        environment: &BTreeMap<String, String>,
        identity: Identity,
    ) -> Self {
        let take = |name: &&str| Some(((*name).to_owned(), environment.get(*name)?.clone()));
        let safe =
            |(_, directory): &(String, String)| identity.uid != 0 || only_root_writes(Path::new(directory));
        let directories = DIRECTORIES.iter().filter_map(take).filter(safe);
        let environment = ENVIRONMENT.iter().filter_map(take).chain(directories).collect();
        Self { engine, args: flags(global), environment, identity }
    }

    /// By the environment of this process, acting as this process.
    pub fn own(engine: &'static str, global: &[String], identity: Identity) -> Self {
        Self::new(engine, global, &variables().collect(), identity)
    }

    /// Acting as root where another user has called sudo. Of that user's environment root takes nothing but a socket of
    /// this machine: any other address would have a client of root's reach wherever that user likes (`ssh://`).
    pub fn of_root(engine: &'static str, identity: Identity) -> Self {
        Self::new(engine, &[], &sockets(variables()), identity)
    }

    /// By the environment of this process, acting as the user who called sudo.
    pub fn of_invoker(engine: &'static str, global: &[String], invoker: &Invoker) -> Self {
        let mut environment: BTreeMap<String, String> = variables().collect();
        for (name, value) in invoker.environment() {
            match value.and_then(|value| value.into_string().ok()) {
                Some(value) => environment.insert(name.to_owned(), value),
                None => environment.remove(name),
            };
        }
        Self::new(engine, global, &environment, Identity::of_invoker(invoker))
    }

    pub fn offers(&self) -> Offers {
        OFFERS
            .iter()
            .find(|(engine, _)| *engine == self.engine)
            .map_or(Offers::Nothing, |(_, offers)| *offers)
    }

    /// The engine is on another machine: nothing it starts is on this one.
    pub fn is_remote(&self) -> bool {
        let host = self.environment.iter().find(|(name, _)| name == "DOCKER_HOST").map(|(_, value)| value);
        self.args.iter().chain(host).any(|word| word.contains("ssh://"))
    }

    /// What has happened to containers since `since_ns` after the epoch.
    pub async fn events(&self, since_ns: u64, until_ns: u64) -> io::Result<Vec<Event>> {
        let (since, until) = (time(since_ns), time(until_ns));
        let args = [
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "type=container",
            "--format",
            "{{json .}}",
        ];
        let text = self.run(&args).await?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Describes a container, by name or id.
    pub async fn inspect(&self, name: &str) -> io::Result<Described> {
        let text = self.run(&["container", "inspect", name]).await?;
        let found = serde_json::from_str::<Vec<Described>>(&text).ok().and_then(|all| all.into_iter().next());
        found.ok_or_else(|| io::Error::other(format!("{} did not answer with a container", self.engine)))
    }

    /// Describes containers; those that are gone by now are left out.
    pub async fn inspect_all(&self, ids: &[String]) -> Vec<Described> {
        let mut found = Vec::new();
        // One at a time: of several, one that is gone makes the client say that all failed.
        for id in ids {
            found.extend(self.inspect(id).await.ok());
        }
        found
    }

    async fn run(&self, args: &[&str]) -> io::Result<String> {
        let began = Instant::now();
        let answer = self.answer(args).await;
        let (engine, question, ms) = (self.engine, args.join(" "), began.elapsed().as_millis());
        match &answer {
            Ok(text) => debug!("{engine} {question}: {} lines in {ms} ms", text.lines().count()),
            Err(error) => debug!("{engine} {question}: failed in {ms} ms: {error}"),
        }
        answer
    }

    /// Starts to follow what a container writes, with times: both streams into one pipe, so that lines stay in their order.
    /// Of what it has written before `since_ns` after the epoch nothing; without one the last lines.
    pub fn follow_log(&self, id: &str, since_ns: Option<u64>) -> io::Result<(Child, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let (option, value) = match since_ns {
            Some(since_ns) => ("--since", time(since_ns)),
            None => ("--tail", MOST_EARLIER_LINES.to_string()),
        };
        let mut command = self.command(&["logs", "--follow", "--timestamps", option, &value, id])?;
        command.stdout(writer.try_clone()?).stderr(writer);
        Ok((command.spawn()?, reader))
    }

    async fn answer(&self, args: &[&str]) -> io::Result<String> {
        let mut command = self.command(args)?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::time::timeout(LIMIT, command.output()).await;
        let output = output.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(
            said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed").to_owned(),
        ))
    }

    /// The client with these words; it ends when it is dropped.
    fn command(&self, args: &[&str]) -> io::Result<Command> {
        // Root runs only what root has installed; what a user finds runs as that user.
        let others = || in_path(self.engine).filter(|_| self.identity.uid != 0);
        let program = trusted(self.engine).or_else(others).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no {} in {}", self.engine, TRUSTED.join(":")))
        })?;
        let mut command = Command::new(program);
        command.args(&self.args).args(args).env_clear().envs(self.environment.iter().map(|(n, v)| (n, v)));
        command.env("PATH", TRUSTED.join(":")).stdin(Stdio::null());
        command.current_dir("/").kill_on_drop(true);
        self.become_client(&mut command);
        Ok(command)
    }

    /// The engine may serve the client's user and not root, or the other way round.
    fn become_client(&self, command: &mut Command) {
        // SAFETY: cannot fail.
        if self.identity.uid == unsafe { libc::geteuid() } {
            return;
        }
        let Identity { uid, gid, groups } = self.identity.clone();
        // SAFETY: between fork and exec only system calls with data that was made before.
        unsafe {
            command.pre_exec(move || become_id(uid, gid, &groups));
        }
    }
}

/// Of the epoch, as engines read it.
fn time(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

/// Variables that name a socket of this machine.
fn sockets(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let is_address = |name: &str| SOCKETS.contains(&name);
    let is_socket = |value: &str| value.starts_with('/') || value.starts_with("unix://");
    variables.filter(|(name, value)| is_address(name) && is_socket(value)).collect()
}

/// Those of this process's that are text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Those of a client's global words that say which engine, with their values.
fn flags(global: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = global.iter();
    while let Some(word) = words.next() {
        if FLAGS.contains(&word.as_str()) {
            kept.push(word.clone());
            kept.extend(words.next().cloned());
        } else if FLAGS.iter().any(|flag| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))) {
            kept.push(word.clone());
        }
    }
    kept
}

/// An event of the engine's stream.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    #[serde(rename = "timeNano")]
    time_ns: u64,
}

#[derive(Debug, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: BTreeMap<String, String>,
}

impl Event {
    /// Adds what it says to what is known.
    pub fn add_to(self, seen: &mut BTreeMap<String, Seen>) {
        let container = seen.entry(self.actor.id).or_default();
        let times = match self.action.split([':', ' ']).next().unwrap_or_default() {
            "create" => Some(&mut container.created),
            "start" | "restart" | "unpause" => Some(&mut container.started),
            "exec_create" | "exec_start" => Some(&mut container.entered),
            _ => None,
        };
        if let Some(times) = times
            && !times.contains(&self.time_ns)
        {
            times.push(self.time_ns);
        }
        let mut attributes = self.actor.attributes;
        container.name = attributes.remove("name").or(container.name.take());
        container.image = attributes.remove("image").or(container.image.take());
        // The labels are among the attributes (daemon/events.go LogContainerEventWithAttributes).
        container.labels.extend(attributes);
    }
}

/// The part of `container inspect` that distinguishes containers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Described {
    id: String,
    name: Option<String>,
    image: Option<String>,
    image_name: Option<String>,
    config: Option<Config>,
    host_config: Option<HostConfig>,
    state: Option<State>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    pid: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct HostConfig {
    #[serde(rename = "ContainerIDFile")]
    id_file: Option<String>,
}

impl Described {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.state.as_ref()?.pid.filter(|pid| *pid > 0)
    }

    /// As a recording keeps it.
    pub fn container(self, engine: &str) -> Container {
        let mut seen = BTreeMap::new();
        let id = self.id.clone();
        self.add_to(&mut seen);
        let Seen { name, image, image_id, mut labels, .. } = seen.remove(&id).unwrap_or_default();
        Container {
            engine: engine.to_owned(),
            id,
            name,
            image,
            image_id,
            service: labels.remove(SERVICE_LABEL),
        }
    }

    /// Adds what it says to what is known.
    pub fn add_to(self, seen: &mut BTreeMap<String, Seen>) {
        let container = seen.entry(self.id).or_default();
        container.name =
            self.name.map(|name| name.trim_start_matches('/').to_owned()).or(container.name.take());
        container.image_id = self.image;
        container.id_file =
            self.host_config.and_then(|config| config.id_file).filter(|file| !file.is_empty());
        let Some(config) = self.config else { return };
        // /proc has no empty words.
        let words = config.cmd.unwrap_or_default().into_iter().filter(|word| !word.is_empty());
        container.command = Some(words.collect());
        container.image = config.image.or(self.image_name).or(container.image.take());
        container.labels.extend(config.labels.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_s_own_words_are_read() {
        let mut seen = BTreeMap::new();
        let line = r#"{"status":"create","id":"ab","from":"img","Type":"container","Action":"create","Actor":{"ID":"ab",
            "Attributes":{"image":"img","name":"web","com.docker.compose.service":"s"}},"scope":"local","time":1,"timeNano":1500}"#;
        let exec = r#"{"Action":"exec_create: sh -c 'x'","Actor":{"ID":"ab","Attributes":{"name":"web"}},"timeNano":7}"#;
        for line in [line, line, exec] {
            serde_json::from_str::<Event>(line).unwrap().add_to(&mut seen);
        }
        let web = &seen["ab"];
        assert_eq!((&web.created, &web.started, &web.entered), (&vec![1500], &vec![], &vec![7]));
        assert_eq!((web.name.as_deref(), web.image.as_deref()), (Some("web"), Some("img")));
        assert_eq!(web.labels["com.docker.compose.service"], "s");
        let inspected = r#"[{"Id":"ab","Name":"/web","Image":"sha256:1","Config":{"Image":"img","Cmd":["a","b"],"Labels":null},
            "HostConfig":{"ContainerIDFile":"/x"}}]"#;
        for described in serde_json::from_str::<Vec<Described>>(inspected).unwrap() {
            described.add_to(&mut seen);
        }
        let web = &seen["ab"];
        assert_eq!(
            (web.command.as_deref(), web.id_file.as_deref()),
            (Some(&["a".to_owned(), "b".to_owned()][..]), Some("/x"))
        );
    }

    #[test]
    fn root_takes_a_socket_of_this_machine_from_a_user_and_nothing_else() {
        let user = [
            ("DOCKER_HOST", "ssh://elsewhere"),
            ("CONTAINER_HOST", "unix:///run/a"),
            ("CONTAINERD_ADDRESS", "/run/b"),
            ("DOCKER_CONTEXT", "/c"),
            ("DOCKER_CONFIG", "/d"),
            ("HOME", "/e"),
            ("PATH", "/f"),
        ];
        let kept = sockets(user.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let names: Vec<_> = kept.keys().map(String::as_str).collect();
        assert_eq!(names, ["CONTAINERD_ADDRESS", "CONTAINER_HOST"]);
    }

    #[test]
    fn only_flags_that_say_which_engine_are_passed_on() {
        let words = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(
            flags(&words("-l debug -H unix:///x --runtime /tmp/evil --root=/r")),
            words("-H unix:///x --root=/r")
        );
    }
}
