//! Programs that have a container engine make containers, by the name that the kernel gives their processes.

use crate::task::COMM_LEN;

/// A client that may start containers outside of the tree of its own processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its file's name, which becomes the process's `comm` (fs/exec.c begin_new_exec).
    pub comm: &'static str,
    /// The engine that it talks to, by the name of that engine's own client.
    pub engine: &'static str,
}

/// All that are known.
pub const CLIENTS: [Client; 4] = [
    Client { comm: "docker", engine: "docker" },
    Client { comm: "docker-compose", engine: "docker" },
    Client { comm: "podman", engine: "podman" },
    Client { comm: "nerdctl", engine: "nerdctl" },
];

/// Their names as two words each: what the kernel side compares.
const WORDS: [(u64, u64); CLIENTS.len()] = {
    let mut words = [(0, 0); CLIENTS.len()];
    let mut i = 0;
    while i < CLIENTS.len() {
        words[i] = words_of(&padded(CLIENTS[i].comm.as_bytes()));
        i += 1;
    }
    words
};

const fn padded(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let mut i = 0;
    while i < name.len() {
        comm[i] = name[i];
        i += 1;
    }
    comm
}

#[inline(always)]
const fn words_of(comm: &[u8; COMM_LEN]) -> (u64, u64) {
    let mut words = [0u64; 2];
    let mut i = 0;
    while i < COMM_LEN {
        words[i / 8] |= (comm[i] as u64) << (8 * (i % 8));
        i += 1;
    }
    (words[0], words[1])
}

/// Whether a process of this name is such a client. The kernel fills the name up with zeros (fs/exec.c __set_task_comm).
#[inline(always)]
pub fn is_client(comm: &[u8; COMM_LEN]) -> bool {
    let (low, high) = words_of(comm);
    let mut i = 0;
    let mut found = false;
    while i < WORDS.len() {
        found |= WORDS[i].0 == low && WORDS[i].1 == high;
        i += 1;
    }
    found
}

/// The client of this name.
pub fn client(comm: &str) -> Option<Client> {
    CLIENTS.into_iter().find(|client| client.comm == comm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_compared() {
        for client in CLIENTS {
            assert!(is_client(&padded(client.comm.as_bytes())));
        }
        for other in ["dockerd", "docker-proxy", "dock", "", "podman-remote"] {
            assert!(!is_client(&padded(other.as_bytes())), "{other}");
            assert_eq!(client(other), None);
        }
    }
}
