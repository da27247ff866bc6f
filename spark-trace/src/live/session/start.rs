//! Starting or finding what is to be traced.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
};

use tokio::process::Child;

use super::{Keep, Session, SessionError, io_error};
use crate::{
    live::{
        cgroup::{Layout, Leaf},
        now_ns,
        output::Output,
        source::process,
        target::{Placement, Spec, command, container, engine, text},
    },
    recording::Container,
};

/// A container that the started command is going to create.
pub(super) struct Awaited {
    pub(super) engine: &'static str,
    pub(super) client: Vec<String>,
    /// Where `run` writes the new container's id; none for compose, all of whose containers are meant.
    pub(super) cidfile: Option<PathBuf>,
    pub(super) remove_cidfile: bool,
    /// Cgroup paths that may be it.
    pub(super) candidates: Vec<String>,
}

impl Awaited {
    /// Removes the file the container's id was written to, if it is ours.
    pub(super) fn clean_up(&self) {
        if self.remove_cidfile
            && let Some(file) = &self.cidfile
        {
            // It is not there where the container was never created.
            let _ = fs::remove_file(file);
        }
    }
}

impl Session {
    pub(super) fn start(&mut self) -> Result<(), SessionError> {
        match self.options.spec.clone() {
            Spec::System { argv } => {
                if matches!(self.options.keep, Keep::Latest(_)) {
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
                self.tracer.target.argv = process::argv(pid);
                self.tracer.add_pid(pid)?;
                self.tracer.publish_target()?;
            }
            Spec::Cgroup(path) => {
                let path = self.cgroup_path(&path)?;
                self.tracer.add_root(&path, false)?;
            }
            Spec::Container { engine, name } => self.attach_container(engine.as_deref(), &name)?,
            Spec::Command { argv, placement, .. } => match engine::recognise(&text(&argv)) {
                Some(invocation) => self.start_container(&argv, &invocation)?,
                None => self.start_native(&argv, placement)?,
            },
        }
        Ok(())
    }

    fn start_native(&mut self, argv: &[OsString], placement: Placement) -> Result<(), SessionError> {
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
        let program = argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let (output, ends) = match &self.options.output {
            Some(options) => {
                let (output, ends) = Output::new(options)?;
                (Some(output), Some(ends))
            }
            None => (None, None),
        };
        match command::start(argv, procs, self.invoker.as_ref(), ends) {
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

    fn start_container(
        &mut self,
        argv: &[OsString],
        invocation: &engine::Invocation,
    ) -> Result<(), SessionError> {
        let client = invocation.client(&text(argv));
        self.tracer.target.kind = "container".to_owned();
        let mut argv = argv.to_vec();
        match &invocation.action {
            engine::Action::Exec { container } => {
                let found = container::inspect(invocation.engine, &client, container)
                    .map_err(io_error("find the container"))?;
                self.adopt(found)?;
            }
            engine::Action::Run { cidfile } => {
                let remove_cidfile = cidfile.is_none();
                let cidfile = cidfile.clone().map_or_else(
                    || {
                        std::env::temp_dir().join(format!(
                            "spark-trace-{}-{}.cid",
                            std::process::id(),
                            now_ns()
                        ))
                    },
                    PathBuf::from,
                );
                if remove_cidfile {
                    argv = invocation.with_cidfile(&argv, &cidfile.to_string_lossy());
                }
                self.await_container(invocation.engine, client, Some(cidfile), remove_cidfile)?;
            }
            engine::Action::Start { container } => {
                let found = container::inspect(invocation.engine, &client, container)
                    .map_err(io_error("find the container"))?;
                self.tracer.target.take_container(found.container);
                self.await_container(invocation.engine, client, None, false)?;
            }
            engine::Action::Compose => self.await_container(invocation.engine, client, None, false)?,
        }
        self.tracer.sample()?;
        // The client is not the target: it runs where it is and is not followed.
        self.child = Some(self.start_command(&argv, None)?);
        Ok(())
    }

    fn await_container(
        &mut self,
        engine: &'static str,
        client: Vec<String>,
        cidfile: Option<PathBuf>,
        remove_cidfile: bool,
    ) -> Result<(), SessionError> {
        self.tracer.wait_for_container()?;
        self.awaited = Some(Awaited { engine, client, cidfile, remove_cidfile, candidates: Vec::new() });
        Ok(())
    }

    fn attach_container(&mut self, engine: Option<&str>, name: &str) -> Result<(), SessionError> {
        let engines: &[&str] = &["docker", "podman", "nerdctl"];
        let mut reasons = Vec::new();
        for candidate in engines.iter().filter(|e| engine.is_none_or(|wanted| wanted == **e)) {
            match container::inspect(candidate, &[(*candidate).to_owned()], name) {
                Ok(found) => return self.adopt(found),
                Err(e) => reasons.push(e.to_string()),
            }
        }
        Err(SessionError::Target(format!("no running container {name}: {}", reasons.join("; "))))
    }

    /// Takes a running container as the target.
    fn adopt(&mut self, found: container::Description) -> Result<(), SessionError> {
        let name = &found.container.id;
        let Some(pid) = found.pid else {
            return Err(SessionError::Target(format!(
                "container {name} does not run; start it under `record --`"
            )));
        };
        let path = Layout::detect()?.of_process(pid)?;
        self.tracer.target.take_container(found.container);
        self.tracer.add_root(&path, false)?;
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

    /// Whether the awaited container can be told among the candidates by now.
    pub(super) fn look_for_container(&mut self) -> Result<(), SessionError> {
        let Some(awaited) = &self.awaited else { return Ok(()) };
        let known = self.tracer.target.container.as_ref().map(|c| c.id.clone());
        let wanted = known.or_else(|| {
            let id = fs::read_to_string(awaited.cidfile.as_ref()?).ok()?;
            (id.trim().len() == 64).then(|| id.trim().to_owned())
        });
        let path = awaited.candidates.iter().find(|path| match (container::id_in_path(path), &wanted) {
            (Some(id), Some(wanted)) => id == wanted,
            // Compose names no id beforehand: its first container is the one.
            (Some(_), None) => awaited.cidfile.is_none(),
            (None, _) => false,
        });
        let Some(id) = path.and_then(|p| container::id_in_path(p)).map(ToOwned::to_owned) else {
            return Ok(());
        };
        let Some(awaited) = self.awaited.take() else { return Ok(()) };
        if awaited.remove_cidfile
            && let Some(file) = &awaited.cidfile
        {
            let _ = fs::remove_file(file);
        }
        let described = container::inspect(awaited.engine, &awaited.client, &id);
        // What `start` was told of beforehand is known already.
        self.tracer.target.take_container(match described {
            Ok(found) => found.container,
            Err(e) => {
                self.warnings.push(format!("the engine did not describe the container: {e}"));
                Container { engine: awaited.engine.to_owned(), id: id.clone(), ..Container::default() }
            }
        });
        self.tracer.resolve(|path| container::id_in_path(path) == Some(id.as_str()))?;
        Ok(())
    }
}
