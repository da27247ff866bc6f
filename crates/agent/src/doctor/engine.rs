//! Container engines: is the client there, and does what it talks to answer?

use std::time::Duration;

use super::{Finding, command::answer};
use spark_trace_host::engine;

pub use spark_trace_host::engine::in_path;

/// A daemon on this machine answers in milliseconds; one that takes longer is as good as none.
const LIMIT: Duration = Duration::from_secs(2);

/// How to reach an engine.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    pub name: &'static str,
    client: &'static [&'static str],
    /// Answered by what runs the containers.
    server: &'static [&'static str],
}

pub const ENGINES: [Engine; 3] = [
    Engine {
        name: "docker",
        client: &["--version"],
        server: &["version", "--format", "{{.Server.Version}}"],
    },
    Engine { name: "podman", client: &["--version"], server: &["info", "--format", "{{.Version.Version}}"] },
    Engine { name: "nerdctl", client: &["--version"], server: &["info", "--format", "{{.ServerVersion}}"] },
];

/// How an engine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    NotInstalled,
    /// Containers can be run: version of what runs them.
    Works {
        client: String,
        server: String,
    },
    Silent {
        client: String,
        reason: String,
    },
}

impl Engine {
    pub fn answer(&self) -> Answer {
        if engine::client(self.name).is_none() {
            return Answer::NotInstalled;
        }
        let run = |args: &[&'static str]| {
            let mut client = engine::client(self.name).ok_or("it is gone")?;
            client.args(args);
            answer(client, LIMIT)
        };
        let client = run(self.client).unwrap_or_else(|reason| format!("client: {reason}"));
        match run(self.server) {
            Ok(server) if !server.is_empty() => Answer::Works { client, server },
            Ok(_) => Answer::Silent { client, reason: "it answers with nothing".to_owned() },
            Err(reason) => Answer::Silent { client, reason },
        }
    }
}

fn finding(engine: &Engine) -> Finding {
    match engine.answer() {
        Answer::NotInstalled => Finding::not_applicable("not installed"),
        Answer::Works { client, server } => Finding::ok(format!("{server} answers; {client}")),
        Answer::Silent { client, reason } => Finding::warning(format!("{client}; {reason}")),
    }
}

pub fn docker() -> Finding {
    finding(&ENGINES[0])
}

pub fn podman() -> Finding {
    finding(&ENGINES[1])
}

pub fn nerdctl() -> Finding {
    finding(&ENGINES[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_no_fault() {
        let none = Engine { name: "no-such-engine", client: &[], server: &[] };
        assert_eq!(none.answer(), Answer::NotInstalled);
        assert_eq!(finding(&none).status, super::super::Status::NotApplicable);
    }

    #[test]
    fn an_engine_that_fails_is_silent_with_its_reason() {
        let failing = Engine { name: "sh", client: &["-c", "echo 1"], server: &["-c", "echo no >&2; false"] };
        assert_eq!(failing.answer(), Answer::Silent { client: "1".to_owned(), reason: "no".to_owned() });
    }
}
