//! Recognises a container engine's command line. Pure.
//!
//! `docker run` and its like only ask a daemon to start the container: the processes are not the
//! command's children, and its memory is not in the command's cgroup. So the container is the target, and
//! the command line tells where to find it.

/// A container engine's command, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `docker`, `podman` or `nerdctl`.
    pub engine: &'static str,
    /// Index of the engine's word in the command line.
    pub engine_at: usize,
    /// Index after the subcommand, where its flags begin.
    pub flags_at: usize,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `run`: a new container; with the file its id is written to if the user named one.
    Run { cidfile: Option<String> },
    /// `compose run`, `compose up`: new containers of a project.
    Compose,
    /// `start`: a stopped container, by name.
    Start { container: String },
    /// `exec`: a process in a running container, by name.
    Exec { container: String },
}

const ENGINES: &[&str] = &["docker", "podman", "nerdctl"];

/// Global flags that take the next word as their value, of all engines.
const GLOBAL_WITH_VALUE: &[&str] = &[
    "-H",
    "-a",
    "-c",
    "-l",
    "-n",
    "--address",
    "--cgroup-manager",
    "--cni-netconfpath",
    "--cni-path",
    "--config",
    "--conmon",
    "--connection",
    "--context",
    "--data-root",
    "--events-backend",
    "--hooks-dir",
    "--host",
    "--hosts-dir",
    "--identity",
    "--log-level",
    "--module",
    "--namespace",
    "--network-cmd-path",
    "--network-config-dir",
    "--out",
    "--root",
    "--runroot",
    "--runtime",
    "--runtime-flag",
    "--snapshotter",
    "--ssh",
    "--storage-driver",
    "--storage-opt",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--tmpdir",
    "--url",
    "--volumepath",
    // compose's own, after the word `compose`
    "-f",
    "-p",
    "--ansi",
    "--env-file",
    "--file",
    "--parallel",
    "--profile",
    "--progress",
    "--project-directory",
    "--project-name",
];

/// Flags of `exec` and `start` that take the next word as their value.
const EXEC_WITH_VALUE: &[&str] =
    &["-e", "-u", "-w", "--detach-keys", "--env", "--env-file", "--user", "--workdir", "--checkpoint"];

/// Flags of sudo and env that take the next word as their value.
const WRAPPER_WITH_VALUE: &[&str] = &[
    "-u", "-g", "-h", "-p", "-C", "-r", "-t", "-T", "-U", "-D", "-R", "-S", "--user", "--group", "--unset",
    "--chdir",
];

/// Recognises `argv`; `None` for any other command.
pub fn recognise(argv: &[String]) -> Option<Invocation> {
    let engine_at = behind_wrappers(argv)?;
    let engine = engine_of(&argv[engine_at])?;
    let mut at = skip_flags(argv, engine_at + 1, GLOBAL_WITH_VALUE);
    // `docker container run` is `docker run`.
    if matches!(argv.get(at)?.as_str(), "container") {
        at += 1;
    }
    let word = argv.get(at)?.as_str();
    if word == "compose" {
        let at = skip_flags(argv, at + 1, GLOBAL_WITH_VALUE);
        let compose = matches!(argv.get(at)?.as_str(), "run" | "up" | "start" | "create");
        return compose.then_some(Invocation {
            engine,
            engine_at,
            flags_at: at + 1,
            action: Action::Compose,
        });
    }
    let flags_at = at + 1;
    let action = match word {
        "run" => Action::Run { cidfile: value_of(&argv[flags_at..], "--cidfile") },
        "exec" => Action::Exec { container: argv.get(skip_flags(argv, flags_at, EXEC_WITH_VALUE))?.clone() },
        "start" => {
            Action::Start { container: argv.get(skip_flags(argv, flags_at, EXEC_WITH_VALUE))?.clone() }
        }
        _ => return None,
    };
    Some(Invocation { engine, engine_at, flags_at, action })
}

/// Index of the first word that is not sudo, env, their flags or an assignment.
fn behind_wrappers(argv: &[String]) -> Option<usize> {
    let mut at = 0;
    loop {
        let word = argv.get(at)?;
        if !matches!(
            base_name(word),
            "sudo" | "env" | "nice" | "ionice" | "time" | "nohup" | "setsid" | "doas"
        ) {
            return Some(at);
        }
        at = skip_flags(argv, at + 1, WRAPPER_WITH_VALUE);
        while argv.get(at).is_some_and(|w| is_assignment(w)) {
            at += 1;
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

fn engine_of(word: &str) -> Option<&'static str> {
    ENGINES.iter().copied().find(|e| *e == base_name(word))
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Index of the first word at or after `at` that is not a flag or a flag's value.
fn skip_flags(argv: &[String], mut at: usize, with_value: &[&str]) -> usize {
    while let Some(word) = argv.get(at) {
        if word == "--" {
            return at + 1;
        }
        if !word.starts_with('-') {
            return at;
        }
        at += if with_value.contains(&word.as_str()) { 2 } else { 1 };
    }
    at
}

/// Value of `--flag value` or `--flag=value` among a subcommand's flags.
fn value_of(words: &[String], flag: &str) -> Option<String> {
    words.iter().enumerate().find_map(|(i, word)| {
        if word == flag {
            words.get(i + 1).cloned()
        } else {
            word.strip_prefix(flag)?.strip_prefix('=').map(ToOwned::to_owned)
        }
    })
}

impl Invocation {
    /// The engine's words up to and including its global flags: what a query about the container begins with.
    pub fn client(&self, argv: &[String]) -> Vec<String> {
        let end = skip_flags(argv, self.engine_at + 1, GLOBAL_WITH_VALUE);
        argv[..end].to_vec()
    }

    /// The command line with `--cidfile FILE` added to its `run`.
    pub fn with_cidfile<Word: Clone + From<String>>(&self, argv: &[Word], file: &str) -> Vec<Word> {
        let mut argv = argv.to_vec();
        argv.splice(
            self.flags_at..self.flags_at,
            ["--cidfile", file].map(|word| Word::from(word.to_owned())),
        );
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(ToOwned::to_owned).collect()
    }

    fn action(line: &str) -> Option<Action> {
        recognise(&words(line)).map(|i| i.action)
    }

    const RUN: Option<Action> = Some(Action::Run { cidfile: None });

    #[test]
    fn runs_are_recognised_however_they_are_written() {
        for line in [
            "docker run --rm image",
            "/usr/bin/docker run image",
            "sudo docker run image",
            "sudo -u me -E docker run image",
            "env A=b docker run image",
            "sudo env A=b C=d /usr/local/bin/docker -H unix:///x run image",
            "docker --context far -l debug run image",
            "docker --host=unix:///x run image",
            "docker container run image",
            "podman --root /tmp/x run image",
            "nerdctl -n k8s.io run image",
        ] {
            assert_eq!(action(line), RUN, "{line}");
        }
    }

    #[test]
    fn other_commands_are_not() {
        for line in [
            "ls",
            "docker ps",
            "dockerd",
            "sudo ls docker run",
            "env",
            "sudo",
            "docker",
            "echo docker run x",
            "docker compose ps",
        ] {
            assert_eq!(action(line), None, "{line}");
        }
    }

    #[test]
    fn containers_and_cidfiles_are_found() {
        assert_eq!(action("docker exec -it -e A=b web sh"), Some(Action::Exec { container: "web".into() }));
        assert_eq!(action("docker start -a web"), Some(Action::Start { container: "web".into() }));
        assert_eq!(action("docker compose -f c.yml run app"), Some(Action::Compose));
        assert_eq!(action("docker run --cidfile=/t/c i"), Some(Action::Run { cidfile: Some("/t/c".into()) }));
        assert_eq!(action("docker run --cidfile /t/c i"), Some(Action::Run { cidfile: Some("/t/c".into()) }));
    }

    #[test]
    fn the_id_file_goes_before_the_flags_of_run_and_queries_keep_global_flags() {
        let argv = words("sudo docker -H unix:///x run --rm image -- cmd");
        let invocation = recognise(&argv).unwrap();
        assert_eq!(
            invocation.with_cidfile(&argv, "/f").join(" "),
            "sudo docker -H unix:///x run --cidfile /f --rm image -- cmd"
        );
        assert_eq!(invocation.client(&argv).join(" "), "sudo docker -H unix:///x");
    }
}
