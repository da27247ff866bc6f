//! What a client of a container engine is to start, by its command line. Pure.
//!
//! One rule for all of them: words before the verb say which engine, and of the words after it those count that are the name
//! or the id of a container, or the image with the container's command at the end of the line. No list of an engine's
//! flags is needed for that.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use spark_trace_common::engine::{self, Client};

/// What the words of a client request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// A new container.
    New,
    /// Containers that exist, by name or id: all that the words name, or the first.
    Named { first: bool },
    /// Containers of a compose project.
    Project { name: Option<String>, directory: Option<String> },
    /// Nothing that starts.
    Nothing,
}

const VERBS: &[(&str, Verb)] = &[
    ("run", Verb::New),
    ("create", Verb::New),
    ("start", Verb::Named),
    ("restart", Verb::Named),
    ("exec", Verb::First),
    ("compose", Verb::Compose),
];

const COMPOSE_VERBS: &[&str] = &["up", "run", "start", "restart", "create", "exec", "watch"];

#[derive(Debug, Clone, Copy)]
enum Verb {
    New,
    Named,
    First,
    Compose,
}

/// A client's command line taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Words between the client's name and the verb.
    pub global: Vec<String>,
    /// Words after the verb.
    pub words: Vec<String>,
    pub intent: Intent,
}

/// Takes the command line of the client called `comm` apart. An interpreter may stand before its name.
pub fn request(comm: &str, argv: &[String]) -> Request {
    let is_client = |word: &String| word.rsplit('/').next() == Some(comm);
    let begin = argv.iter().position(is_client).unwrap_or(0);
    let rest = argv.get(begin + 1..).unwrap_or_default();
    if comm == "docker-compose" {
        // As a plugin of docker it is given that word again.
        let rest = if rest.first().is_some_and(|word| word == "compose") { &rest[1..] } else { rest };
        return compose(Vec::new(), rest);
    }
    let verb = rest
        .iter()
        .enumerate()
        .find_map(|(at, word)| VERBS.iter().find(|(name, _)| name == word).map(|(_, verb)| (at, *verb)));
    let Some((at, verb)) = verb else {
        return Request { global: Vec::new(), words: rest.to_vec(), intent: Intent::Nothing };
    };
    let mut global = rest[..at].to_vec();
    // `docker container run` is `docker run`.
    if global.last().is_some_and(|word| word == "container") {
        global.pop();
    }
    let words = rest[at + 1..].to_vec();
    let intent = match verb {
        Verb::New => Intent::New,
        Verb::Named => Intent::Named { first: false },
        Verb::First => Intent::Named { first: true },
        Verb::Compose => return compose(global, &words),
    };
    Request { global, words, intent }
}

fn compose(global: Vec<String>, words: &[String]) -> Request {
    let verb = words.iter().position(|word| COMPOSE_VERBS.contains(&word.as_str()));
    let intent = match verb {
        None => Intent::Nothing,
        Some(at) => Intent::Project {
            name: value_of(&words[..at], &["-p", "--project-name"]),
            directory: value_of(&words[..at], &["--project-directory"]),
        },
    };
    Request { global, words: words.to_vec(), intent }
}

/// Value of the first `--flag value` or `--flag=value` among words.
pub fn value_of(words: &[String], flags: &[&str]) -> Option<String> {
    values_of(words, flags).next().map(ToOwned::to_owned)
}

/// All of them.
pub fn values_of<'a>(words: &'a [String], flags: &'a [&str]) -> impl Iterator<Item = &'a str> {
    words.iter().enumerate().filter_map(|(i, word)| {
        if flags.contains(&word.as_str()) {
            return words.get(i + 1).map(String::as_str);
        }
        let (flag, value) = word.split_once('=')?;
        flags.contains(&flag).then_some(value)
    })
}

/// A command line that is itself `docker run` or the like of another engine, where nothing stands before the engine. Where a
/// file for the container's id is named already there is none for ours.
pub fn direct(argv: &[String]) -> Option<(Client, Request)> {
    let client = engine::client(argv.first()?.rsplit('/').next()?)?;
    let request = request(client.comm, argv);
    let direct = match request.intent {
        Intent::New => value_of(&request.words, &["--cidfile"]).is_none(),
        Intent::Named { first } => first,
        Intent::Project { .. } | Intent::Nothing => false,
    };
    direct.then_some((client, request))
}

/// Words at the head of a command line that set variables, as for `env`: their names and values.
pub fn assignments(argv: &[OsString]) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    argv.iter().map_while(|word| {
        let bytes = word.as_bytes();
        let (name, value) = bytes.split_at(bytes.iter().position(|byte| *byte == b'=')?);
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let begins = name.first().is_some_and(|byte| !byte.is_ascii_digit());
        (begins && name.iter().all(is_name))
            .then(|| (OsStr::from_bytes(name), OsStr::from_bytes(&value[1..])))
    })
}

/// The absolute directory of a project.
pub fn project_directory(directory: Option<&String>, working: Option<&PathBuf>) -> Option<PathBuf> {
    match (directory, working) {
        (Some(directory), Some(working)) => Some(working.join(directory)),
        (Some(directory), None) => Some(PathBuf::from(directory)),
        (None, working) => working.cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(ToOwned::to_owned).collect()
    }

    fn intent(comm: &str, line: &str) -> Intent {
        request(comm, &words(line)).intent
    }

    #[test]
    fn verbs_are_found_behind_global_flags() {
        for line in [
            "docker run --rm image",
            "/usr/bin/docker container run image",
            "docker -H unix:///x run image",
            "docker --context far -l debug run image",
            "/bin/sh /usr/bin/docker run image",
        ] {
            assert_eq!(intent("docker", line), Intent::New, "{line}");
        }
        assert_eq!(
            request("docker", &words("docker -H unix:///x container run a b")).global,
            words("-H unix:///x")
        );
        assert_eq!(intent("podman", "podman --root /r run --name=web image"), Intent::New);
        assert_eq!(intent("docker", "docker restart a b"), Intent::Named { first: false });
        assert_eq!(intent("docker", "docker exec -it web sh"), Intent::Named { first: true });
        for line in ["docker ps", "docker", "docker build .", "docker compose ps"] {
            assert_eq!(intent("docker", line), Intent::Nothing, "{line}");
        }
    }

    #[test]
    fn compose_is_a_client_and_a_plugin() {
        let project =
            |name: Option<&str>| Intent::Project { name: name.map(ToOwned::to_owned), directory: None };
        assert_eq!(intent("docker", "docker compose -p x up -d"), project(Some("x")));
        assert_eq!(intent("docker-compose", "/usr/libexec/docker-compose compose up"), project(None));
        assert_eq!(
            intent("docker-compose", "/usr/bin/python3 /usr/bin/docker-compose -f c.yml up"),
            project(None)
        );
        assert_eq!(intent("docker-compose", "docker-compose ps"), Intent::Nothing);
    }

    #[test]
    fn a_line_that_begins_with_the_engine_is_the_client_itself() {
        let words_of = |line: &str| direct(&words(line)).map(|(_, request)| request.words.join(" "));
        assert_eq!(words_of("docker run --rm image").as_deref(), Some("--rm image"));
        assert_eq!(words_of("/usr/bin/docker -H unix:///x container run image").as_deref(), Some("image"));
        assert_eq!(words_of("podman exec web sh").as_deref(), Some("web sh"));
        for line in
            ["sudo docker run image", "docker start web", "docker ps", "ls", "docker run --cidfile=/f image"]
        {
            assert_eq!(words_of(line), None, "{line}");
        }
        let values: Vec<_> = words("--name a x --name=b");
        assert_eq!(values_of(&values, &["--name"]).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn assignments_end_at_the_first_other_word() {
        let split = |line: &str| {
            let argv: Vec<OsString> = line.split(' ').map(Into::into).collect();
            assignments(&argv).map(|(n, v)| format!("{}:{}", n.display(), v.display())).collect::<Vec<_>>()
        };
        assert_eq!(split("A=b _c=d=e docker run -e X=y image"), ["A:b", "_c:d=e"]);
        for line in ["./a=b", "1=b", "=b", "ls a=b"] {
            assert!(split(line).is_empty(), "{line}");
        }
    }
}
