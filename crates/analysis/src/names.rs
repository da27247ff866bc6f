//! What the ids of a recording stand for.

use std::collections::{BTreeMap, BTreeSet};

use crate::whose::Whose;
use spark_trace_recording::cgroup_path::{below, leaf_owner};
pub use spark_trace_recording::classify::frame;
use spark_trace_recording::word::Word;
use spark_trace_recording::{FilePages, FirstTouch, Process, Recording, Stack, Symbol, TRACER, Way};

/// A name that several ids could not be given.
const NO_CGROUP: &str = "(none)";

/// What the cgroup that spark-trace made for the command is called.
const COMMAND_LEAF: &str = "command";

pub struct Names<'a> {
    paths: BTreeMap<u64, &'a str>,
    target: BTreeSet<u64>,
    /// Every process is the target's.
    whole_machine: bool,
    /// Processes of the target.
    pids: BTreeSet<u32>,
    /// spark-trace's own process, where the recording names it.
    tracer: Option<u32>,
    /// Other spark-traces.
    beside: &'a [u32],
    stacks: BTreeMap<u32, &'a Stack>,
    comms: BTreeMap<u32, &'a str>,
    /// Processes that spark-trace started: what they are called, and when they became that.
    started: BTreeMap<u32, (&'a str, u64)>,
    symbols: &'a [Symbol],
    /// Names of containers by their ids.
    containers: BTreeMap<&'a str, &'a str>,
    /// The cgroup that spark-trace made for the command.
    leaf: Option<&'a str>,
}

impl<'a> Names<'a> {
    pub fn new(recording: &'a Recording) -> Self {
        let (target, provenance) = (&recording.target, &recording.provenance);
        let named = provenance.cgroups.iter().map(|cgroup| (cgroup.id, cgroup.path.as_str()));
        let own = target.cgroups.iter().map(|cgroup| (cgroup.id, cgroup.path.as_str()));
        let of_target = provenance.cgroups.iter().filter(|cgroup| cgroup.target).map(|cgroup| cgroup.id);
        let ids: BTreeSet<u64> = of_target.chain(target.cgroups.iter().map(|cgroup| cgroup.id)).collect();
        // A target without a cgroup of its own is its processes, and no others are in the recording.
        let ours = |cgroup: u64| ids.is_empty() || ids.contains(&cgroup);
        let processes = provenance.processes.iter().filter(|process| ours(process.cgroup));
        Self {
            whole_machine: target.is_whole_machine(),
            pids: processes.map(|process| process.pid).collect(),
            tracer: recording.tool.pid,
            beside: &recording.health.beside,
            paths: named.chain(own).collect(),
            target: ids,
            stacks: provenance.stacks.iter().map(|stack| (stack.id, stack)).collect(),
            comms: provenance.processes.iter().map(|process| (process.pid, process.comm.as_str())).collect(),
            started: provenance.processes.iter().filter_map(|process| started(recording, process)).collect(),
            symbols: &provenance.symbols,
            containers: containers(recording).collect(),
            leaf: target.cgroups.iter().map(|cgroup| cgroup.path.as_str()).find(|path| is_leaf(path)),
        }
    }

    /// Path of a cgroup, or its id where the recording does not name it.
    pub fn cgroup(&self, id: u64) -> String {
        match self.paths.get(&id) {
            Some(path) => (*path).to_owned(),
            None if id == 0 => NO_CGROUP.to_owned(),
            None => format!("(cgroup {id})"),
        }
    }

    pub fn is_target(&self, id: u64) -> bool {
        self.target.contains(&id)
    }

    /// A container's name, else the first digits of its id.
    pub fn container(&self, id: &str) -> String {
        self.container_name(id).unwrap_or_else(|| short(id))
    }

    pub fn container_name(&self, id: &str) -> Option<String> {
        self.containers.get(id).map(|name| (*name).to_owned())
    }

    /// Path of a cgroup for people: a container's id by its first digits, and its name; `command` for the cgroup that
    /// spark-trace made for the command, whose own name looks as if spark-trace's memory were in it.
    pub fn shown_cgroup(&self, path: &str) -> String {
        if let Some(below) = self.leaf.and_then(|leaf| below(path, leaf)) {
            return format!("{COMMAND_LEAF}{below}");
        }
        let name = path.split(['/', '-', '.', ':']).find_map(|part| self.containers.get(part));
        match name {
            Some(name) => format!("{} ({name})", short(path)),
            None => short(path),
        }
    }

    /// Whose a cgroup is.
    pub fn whose_cgroup(&self, id: u64) -> Whose {
        if self.whole_machine || self.is_target(id) { Whose::Target } else { Whose::Others }
    }

    /// Whose a row of the page cache is: its payer's or its first toucher's, if one of them is the target.
    pub fn whose_file(&self, file: &FilePages) -> Whose {
        let touch = file.first_touch.as_ref();
        if touch.is_some_and(|touch| self.is_tracer(touch)) {
            return Whose::Tracer;
        }
        let touched =
            touch.is_some_and(|touch| self.is_target(touch.cgroup) || self.pids.contains(&touch.pid));
        // What was cached before is read of files that the target has mapped or open.
        let used = file.before.is_some();
        if touched || used { Whose::Target } else { self.whose_cgroup(file.charged_to) }
    }

    /// Older recordings do not name spark-trace's process: then its name decides, outside the target.
    fn is_tracer(&self, touch: &FirstTouch) -> bool {
        match self.tracer {
            // The number of one that has ended may be another process's since.
            Some(pid) => touch.pid == pid || touch.comm == TRACER && self.beside.contains(&touch.pid),
            None => touch.comm == TRACER && !self.pids.contains(&touch.pid) && !self.is_target(touch.cgroup),
        }
    }

    /// The command name of who touched a file first. Of a command that spark-trace started that may be the child before it
    /// became the command: it has the command's name.
    pub fn toucher(&self, touch: &FirstTouch) -> String {
        let before_exec = || {
            let (process, exec_ns) = self.started.get(&touch.pid)?;
            (touch.comm == TRACER && touch.at_ns < *exec_ns).then(|| (*process).to_owned())
        };
        before_exec().unwrap_or_else(|| touch.comm.clone())
    }

    /// Command name of a process; of a pid that came again the last one.
    pub fn comm(&self, pid: u32) -> String {
        self.comms.get(&pid).map_or_else(|| "?".to_owned(), |comm| (*comm).to_owned())
    }

    /// The same as text, without addresses that lie in no file: those of a JIT, and where a walk without frame pointers
    /// ends in what is no frame. They are others in each call and say nothing.
    pub fn resolved(&self, stack: Option<u32>) -> Vec<String> {
        resolved(&self.frames(stack))
    }

    /// How the frames of a user stack were found.
    pub fn way(&self, stack: Option<u32>) -> Option<Word<Way>> {
        self.stacks.get(&stack?)?.way.clone()
    }

    /// Frames of a stack, innermost first; none where the kernel could not take it.
    pub fn frames(&self, stack: Option<u32>) -> Vec<&'a Symbol> {
        let stack = stack.and_then(|id| self.stacks.get(&id));
        stack.map_or_else(Vec::new, |stack| {
            stack.frames.iter().filter_map(|&frame| self.symbols.get(frame as usize)).collect()
        })
    }
}

/// `/.../spark-trace-PID-START`, as `record` names the cgroup that it makes for a command.
fn is_leaf(path: &str) -> bool {
    path.rsplit('/').next().and_then(leaf_owner).is_some()
}

/// A process that is a child of spark-trace's, with its name and its first exec.
fn started<'a>(recording: &Recording, process: &'a Process) -> Option<(u32, (&'a str, u64))> {
    let is_child = process.parent.is_some() && process.parent == recording.tool.pid;
    is_child.then_some((process.pid, (process.comm.as_str(), process.exec_ns?)))
}

/// Length of the ids that engines give containers, and what of one their listings show.
const ID: usize = 64;
const SHORT_ID: usize = 12;

/// A path, an id or a sentence with the first digits of each container's id, as `docker ps` shows them.
pub fn short(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_id = word.len() == ID && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let cut = if is_id { SHORT_ID } else { word.len() };
        shown.push_str(word.get(..cut).unwrap_or(word));
        shown.push_str(part.get(word.len()..).unwrap_or_default());
    }
    shown
}

/// Ids and names of the containers that the recording knows.
fn containers(recording: &Recording) -> impl Iterator<Item = (&str, &str)> {
    // Recordings of 0.1.0 have the first alone.
    let known = recording.target.container.iter().chain(&recording.target.containers);
    known.filter_map(|container| Some((container.id.as_str(), container.name.as_deref()?)))
}

/// Frames as text, those left out that have neither a name nor a file.
pub fn resolved(frames: &[&Symbol]) -> Vec<String> {
    let frames = frames.iter().filter(|symbol| symbol.name.is_some() || symbol.module.is_some());
    frames.map(|symbol| frame(symbol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;

    #[test]
    fn ids_have_names() {
        let recording = testing::container();
        let names = Names::new(&recording);
        assert_eq!(names.cgroup(20), "/system.slice/docker-0123456789ab.scope");
        assert_eq!((names.cgroup(0).as_str(), names.cgroup(7).as_str()), ("(none)", "(cgroup 7)"));
        assert!(names.is_target(20) && !names.is_target(1));
    }

    #[test]
    fn containers_are_called_as_engines_list_them() {
        let id = "0123456789abcdef".repeat(4);
        for (path, wanted) in [
            (format!("/docker/{id}"), "/docker/0123456789ab"),
            (format!("/system.slice/docker-{id}.scope/sub"), "/system.slice/docker-0123456789ab.scope/sub"),
            (format!("/kubepods/cri-containerd:{id}"), "/kubepods/cri-containerd:0123456789ab"),
            (id.clone(), "0123456789ab"),
            ("/user.slice/user-1000.slice".to_owned(), "/user.slice/user-1000.slice"),
            (format!("/docker/{}", &id[..63]), &format!("/docker/{}", &id[..63])),
        ] {
            assert_eq!(short(&path), wanted, "{path}");
        }
        let mut recording = testing::container();
        recording.target.container.as_mut().unwrap().id = id.clone();
        let names = Names::new(&recording);
        assert_eq!(names.shown_cgroup(&format!("/docker/{id}/x")), "/docker/0123456789ab/x (serve)");
        assert_eq!(names.shown_cgroup("/docker/other"), "/docker/other");
        assert_eq!((names.container(&id).as_str(), names.container("b").as_str()), ("serve", "b"));
    }

    #[test]
    fn the_cgroup_made_for_a_command_is_called_so() {
        let mut recording = testing::container();
        recording.target.cgroups[0].path = "/user.slice/spark-trace-5220-2781822".to_owned();
        let names = Names::new(&recording);
        assert_eq!(names.shown_cgroup("/user.slice/spark-trace-5220-2781822"), "command");
        assert_eq!(names.shown_cgroup("/user.slice/spark-trace-5220-2781822/child"), "command/child");
        // Another recorder's, and names that only begin alike.
        for other in ["/user.slice/spark-trace-5220-27818220", "/spark-trace-1-2", "/user.slice"] {
            assert_eq!(names.shown_cgroup(other), other);
        }
        for no_leaf in ["/spark-trace-1", "/spark-trace-1-x", "/spark-trace--", "/a-spark-trace-1-2", "", "/"]
        {
            assert!(!is_leaf(no_leaf), "{no_leaf}");
        }
    }

    #[test]
    fn frames_have_names_or_addresses() {
        let symbol = |name: Option<&str>, module: Option<&str>| Symbol {
            name: name.map(Into::into),
            module: module.map(Into::into),
            address: 0x40,
            ..Symbol::default()
        };
        assert_eq!(frame(&symbol(Some("f"), None)), "f");
        assert_eq!(frame(&symbol(None, Some("nvidia"))), "0x40 [nvidia]");
        let python =
            |line, module: &str| Symbol { python: true, line, ..symbol(Some("Model.load"), Some(module)) };
        assert_eq!(
            frame(&python(Some(7), "/opt/lib/python3.12/site-packages/vllm/m.py")),
            "vllm/m.py:Model.load:7"
        );
        assert_eq!(frame(&python(None, "/srv/run.py")), "/srv/run.py:Model.load:?");
        let recording = testing::container();
        assert!(Names::new(&recording).frames(None).is_empty());
        assert!(Names::new(&recording).frames(Some(u32::MAX)).is_empty());
    }
}
