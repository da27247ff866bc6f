//! What a recording is of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::TargetKind;
use super::word::Word;

/// What was traced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// `command`, `container`, `cgroup`, `pid`, `system`, or `snapshot` for one instant of the whole machine. A command
    /// that only starts containers is of kind `container`. `pid`, `system` and `record --no-cgroup` have no cgroup
    /// plane.
    pub kind: Word<TargetKind>,
    /// The traced command with its arguments.
    pub argv: Vec<String>,
    /// The target's memory cgroups: its roots and every cgroup created below them. Counters of a root include those of
    /// its descendants, so the cgroup plane is the sum of the roots.
    pub cgroups: Vec<TargetCgroup>,
    /// The first of `containers`.
    pub container: Option<Container>,
    /// Containers that are part of the target, in the order in which they were found. Recordings of 0.1.0 have
    /// `container` only.
    #[serde(default)]
    pub containers: Vec<Container>,
    /// Exit code of the traced command; 128 + signal after a signal; absent if there was no command or its end was not
    /// seen.
    pub exit_code: Option<i32>,
    pub started_ns: u64,
    pub ended_ns: u64,
}

impl Target {
    /// Every process is the target's.
    pub fn is_whole_machine(&self) -> bool {
        matches!(self.kind.known(), Some(TargetKind::System | TargetKind::Snapshot))
    }

    /// Takes a container in as part of the target.
    pub fn take_container(&mut self, container: Container) {
        match self.containers.iter_mut().find(|known| known.id == container.id) {
            Some(known) => *known = container,
            None => self.containers.push(container),
        }
        self.container = self.containers.first().cloned();
    }

    /// The tool started it.
    pub fn is_command(&self) -> bool {
        self.kind == TargetKind::Command
    }

    /// One instant was read, and nothing traced.
    pub fn is_snapshot(&self) -> bool {
        self.kind == TargetKind::Snapshot
    }
}

/// One memory cgroup of the target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetCgroup {
    /// Inode number of the cgroup's directory in the memory hierarchy. `samples` and `provenance` use the same ids.
    pub id: u64,
    /// Path below the mount point of the hierarchy.
    pub path: String,
    /// No ancestor of it is part of the target.
    pub root: bool,
    /// When it was created, if that was while tracing. Its counters then started at 0.
    pub created_ns: Option<u64>,
    /// When it was removed.
    pub removed_ns: Option<u64>,
    /// Bytes charged to it when it was removed.
    pub usage_at_removal: Option<u64>,
    /// Its peak, as the kernel counted it, when it was removed.
    pub peak_at_removal: Option<u64>,
    /// Processes that the kernel had killed in it for lack of memory when it was removed; with cgroup v2 also those in
    /// cgroups below it.
    #[serde(default)]
    pub oom_kills_at_removal: Option<u64>,
    /// Id of the container to which the cgroup belongs.
    #[serde(default)]
    pub container: Option<String>,
}

/// A container that is part of the target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// `docker`, `podman` or `nerdctl`.
    pub engine: String,
    pub id: String,
    pub name: Option<String>,
    pub image: Option<String>,
    pub image_id: Option<String>,
    /// Its service, if it belongs to a compose project.
    #[serde(default)]
    pub service: Option<String>,
}
