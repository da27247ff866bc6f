//! Starting or finding what is to be traced.

use std::{ffi::OsString, fs::File, path::Path};

use spark_trace_common::engine::{CLIENTS, Client};
use tokio::process::Child;

use super::{Session, SessionError, io_error};
use crate::{
    cgroup::{Layout, Leaf},
    output::{Output, container::Expected},
    source::process,
    subject::{
        Placement, Spec,
        client_args::{self, Intent, Request},
        command::{self, Invoker, Writes},
        id_file::IdFile,
        question::{Described, Endpoint, Identity},
        text,
    },
};
use spark_trace_recording::TargetKind;

impl Session {
    pub(super) async fn start(&mut self) -> Result<(), SessionError> {
        match self.options.spec.clone() {
            Spec::System { argv } => {
                if self.tracer.retention.policy().whole_machine {
                    self.tracer.add_everything()?;
                }
                if !argv.is_empty() {
                    self.spawn(&argv, None)?;
                }
            }
            Spec::Pid(pid) => {
                if process::has_ended(pid) {
                    return Err(SessionError::Target(format!("no process {pid}")));
                }
                self.tracer.target.argv = process::command_line(pid).argv;
                self.tracer.add_tree(pid)?;
                self.tracer.publish_target()?;
            }
            Spec::Cgroup(path) => {
                let path = self.cgroup_path(&path)?;
                self.tracer.add_root(&path, false)?;
            }
            Spec::Container { engine, name } => self.attach_container(engine.as_deref(), &name).await?,
            Spec::Command { argv, placement, .. } => {
                match client_args::direct(&text(&argv[client_args::assignments(&argv).count()..])) {
                    Some((client, request)) => self.start_container(&argv, client, request).await?,
                    None => self.start_native(&argv, placement)?,
                }
            }
        }
        Ok(())
    }

    fn start_native(&mut self, argv: &[OsString], placement: Placement) -> Result<(), SessionError> {
        self.tracer.follows_commands = true;
        let mut procs = None;
        if placement == Placement::Leaf {
            let leaf = Leaf::create(&Layout::detect()?)?;
            self.tracer.add_root(&leaf.path, true)?;
            procs = Some(leaf.procs_file()?);
            self.leaf = Some(leaf);
        }
        self.tracer.sample()?;
        self.spawn(argv, procs)
    }

    fn spawn(&mut self, argv: &[OsString], procs: Option<File>) -> Result<(), SessionError> {
        // Followed from its fork on: our own pid is selected until it has forked.
        let own = std::process::id();
        self.tracer.object.select_pid(own)?;
        let child = self.start_command(argv, procs);
        self.tracer.object.deselect_pid(own)?;
        let child = child?;
        if let Some(pid) = child.id() {
            self.tracer.add_pid(pid)?;
        }
        self.child = Some(child);
        Ok(())
    }

    /// Starts a command, whose output is read where that is wanted.
    fn start_command(&mut self, argv: &[OsString], procs: Option<File>) -> Result<Child, SessionError> {
        let variables: Vec<_> = client_args::assignments(argv).collect();
        let argv = &argv[variables.len()..];
        let program = argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let (output, writes) = match &self.options.output {
            Some(options) => {
                let (output, ends) = Output::new(options, self.options.command_output)?;
                (Some(output), Writes::Pipes(ends))
            }
            None => (None, Writes::Inherited(self.options.command_output)),
        };
        match command::start(argv, &variables, procs, self.invoker.as_ref(), writes) {
            Ok(mut child) => {
                self.output = output;
                if let Some(Err(cause)) = self.output.as_mut().map(Output::begin) {
                    // It would wait for somebody to read for ever.
                    let _ = child.start_kill();
                    return Err(io_error("read the command's output")(cause));
                }
                Ok(child)
            }
            Err(failure) => {
                if let Some(output) = output {
                    output.abandon();
                }
                Err(match failure {
                    command::Failure::Exec(cause) => SessionError::Start { program, cause },
                    command::Failure::Setup(what, cause) => {
                        io_error(format!("start {program}: cannot {what}"))(cause)
                    }
                })
            }
        }
    }

    /// The command is itself the client of an engine. It is not the target: it runs where it is and is not followed.
    async fn start_container(
        &mut self,
        argv: &[OsString],
        client: Client,
        request: Request,
    ) -> Result<(), SessionError> {
        self.tracer.target.kind = TargetKind::Container.into();
        if request.intent != Intent::New {
            self.adopt_named(client, &request).await?;
            self.tracer.sample()?;
            self.child = Some(self.start_command(argv, None)?);
            return Ok(());
        }
        let file = IdFile::new(self.invoker.as_ref().map(Invoker::owner))
            .map_err(io_error("make a place for the container's id"))?;
        let mut argv = argv.to_vec();
        let flags_at = argv.len() - request.words.len();
        argv.splice(flags_at..flags_at, ["--cidfile".into(), file.path().into_os_string()]);
        self.tracer.await_containers()?;
        self.tracer.sample()?;
        let child = self.start_command(&argv, None)?;
        let pid = child.id().unwrap_or_default();
        self.child = Some(child);
        self.client_with_file(client, request, pid, file)
    }

    /// `exec`: the target is the container that is entered, the first that the words name.
    async fn adopt_named(&mut self, client: Client, request: &Request) -> Result<(), SessionError> {
        // The command itself makes its requests as whoever it runs as.
        let endpoint = match &self.invoker {
            Some(invoker) => Endpoint::of_invoker(client.engine, &request.global, invoker),
            None => self.own_endpoint(client.engine, &request.global)?,
        };
        let mut reason = None;
        for word in request.words.iter().filter(|word| !word.starts_with('-')) {
            match endpoint.inspect(word).await {
                Ok(found) => return self.adopt(&endpoint, found),
                Err(e) => reason = reason.or(Some(e.to_string())),
            }
        }
        let reason = reason.unwrap_or_else(|| "no container is named".to_owned());
        Err(SessionError::Target(format!("no container to enter: {reason}")))
    }

    fn own_endpoint(&self, engine: &'static str, global: &[String]) -> Result<Endpoint, SessionError> {
        Ok(Endpoint::own(engine, global, own_identity()?))
    }

    async fn attach_container(&mut self, engine: Option<&str>, name: &str) -> Result<(), SessionError> {
        let mut reasons = Vec::new();
        let mut engines: Vec<&'static str> = CLIENTS.iter().map(|client| client.engine).collect();
        engines.dedup();
        for candidate in engines.into_iter().filter(|e| engine.is_none_or(|wanted| wanted == *e)) {
            // As the user who called sudo, and as root, whom alone the engine may serve.
            let endpoints = match &self.invoker {
                None => vec![self.own_endpoint(candidate, &[])?],
                Some(user) => {
                    let root = Endpoint::of_root(candidate, own_identity()?);
                    vec![Endpoint::of_invoker(candidate, &[], user), root]
                }
            };
            for endpoint in endpoints {
                match endpoint.inspect(name).await {
                    Ok(found) => return self.adopt(&endpoint, found),
                    Err(e) => reasons.push(format!("{candidate}: {e}")),
                }
            }
        }
        Err(SessionError::Target(format!("no running container {name}: {}", reasons.join("; "))))
    }

    /// Takes a running container as the target.
    fn adopt(&mut self, endpoint: &Endpoint, found: Described) -> Result<(), SessionError> {
        let Some(pid) = found.pid() else {
            let name = found.id();
            return Err(SessionError::Target(format!(
                "container {name} does not run; start it under `record --`"
            )));
        };
        let path = Layout::detect()?.of_process(pid)?;
        let id = found.id().to_owned();
        self.tracer.target.take_container(found.container(endpoint.engine));
        self.tracer.add_root(&path, false)?;
        self.follow_log(endpoint, &id, None, Expected::There);
        Ok(())
    }

    /// A cgroup given as a directory or as its path below the memory hierarchy.
    fn cgroup_path(&self, path: &Path) -> Result<String, SessionError> {
        let layout = Layout::detect()?;
        let below = layout.path_of(path).unwrap_or_else(|| path.display().to_string());
        if !layout.dir(&below).is_dir() {
            let root = layout.memory_root.display();
            return Err(SessionError::Target(format!("no memory cgroup {below} below {root}")));
        }
        Ok(if below.starts_with('/') { below } else { format!("/{below}") })
    }
}

fn own_identity() -> Result<Identity, SessionError> {
    Identity::own().ok_or_else(|| SessionError::Target("cannot read /proc/self/status".to_owned()))
}
