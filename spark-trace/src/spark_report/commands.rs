//! The two command lines, and why one cannot be used. What is wrong with them is known before anything runs.

use std::path::{Path, PathBuf};

use spark_trace_agent::subject::client_args::{self, Intent};
use spark_trace_common::engine;
use spark_trace_host::engine::in_path;

use super::words::split;

/// A and B: the command natively, and in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub native: Vec<String>,
    pub container: Container,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub line: Vec<String>,
    /// Its client, such as `docker`.
    pub engine: &'static str,
    /// Words that say which engine: `--context NAME`.
    pub global: Vec<String>,
    pub image: String,
}

/// An option of `run` with which runs could not be compared, or would not end.
struct Refused {
    names: &'static [&'static str],
    why: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused {
        names: &["-d", "--detach"],
        why: "it returns before the container has ended, and the recording would end with it: leave it out",
    },
    Refused { names: &["-t", "--tty"], why: "there is no terminal: leave it out" },
    Refused { names: &["-i", "--interactive"], why: "there is no input: leave it out" },
    Refused {
        names: &["--pull"],
        why: "what is downloaded during a run is in its memory: pull the image before, and leave it out",
    },
    Refused { names: &["--help"], why: "nothing would run: leave it out" },
];

/// Options of `run` that take no value (docker 29, podman 5, nerdctl 2). Another one is taken to have a value in the next word;
/// what is taken for the image is looked up with the engine before anything runs.
const SWITCHES: &[&str] = &[
    "--detach",
    "--disable-content-trust",
    "--env-host",
    "--help",
    "--init",
    "--insecure-registry",
    "--interactive",
    "--no-healthcheck",
    "--no-hostname",
    "--no-hosts",
    "--oom-kill-disable",
    "--privileged",
    "--publish-all",
    "--quiet",
    "--read-only",
    "--read-only-tmpfs",
    "--replace",
    "--rm",
    "--rmi",
    "--rootfs",
    "--sig-proxy",
    "--tls-verify",
    "--tty",
    "--use-api-socket",
];
/// The same of one letter, which can stand together: `-it`.
const LETTERS: &str = "ditPq";

/// Reads both; why not, in a sentence.
pub fn read(native: &str, container: &str, here: &Path) -> Result<Pair, String> {
    let words = |option: &str, line: &str| split(line).map_err(|why| format!("{option} `{line}`: {why}"));
    let (native, container) = (words("--native", native)?, words("--container", container)?);
    if native == container {
        return Err(
            "--native and --container are the same command: nothing could differ. Write the command once as it runs on this machine, \
             and once with `docker run ...`"
                .to_owned(),
        );
    }
    Ok(Pair { container: of_container(container)?, native: natively(native, here)? })
}

fn refuse_sudo(option: &str, line: &[String]) -> Result<(), String> {
    match line.first().map(String::as_str) {
        Some("sudo") => Err(format!(
            "{option}: leave `sudo` out: spark-report itself needs it, and the command then runs as root, too"
        )),
        _ => Ok(()),
    }
}

fn client_of(line: &[String]) -> Option<engine::Client> {
    engine::client(line.first()?.rsplit('/').next()?)
}

fn natively(mut line: Vec<String>, here: &Path) -> Result<Vec<String>, String> {
    refuse_sudo("--native", &line)?;
    if let Some(client) = client_of(&line) {
        return Err(format!(
            "--native is a command of {}: name what runs without a container; the container's goes to --container",
            client.comm
        ));
    }
    let Some(program) = line.first_mut() else { return Err("--native is empty".to_owned()) };
    if program.contains('/') {
        // A study looks for it from the root.
        let path = here.join(&*program);
        check_executable(&path).map_err(|why| format!("--native: {}: {why}", path.display()))?;
        *program = path.display().to_string();
    } else if in_path(program).is_none() {
        return Err(format!(
            "--native: there is no program {program} in PATH; sudo replaces PATH: write its path, or use `sudo env \"PATH=$PATH\" \
             spark-trace spark-report ...`"
        ));
    }
    Ok(line)
}

fn check_executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let about = path.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    if about.permissions().mode() & 0o111 == 0 {
        return Err(format!("it cannot be executed: chmod +x {}", path.display()));
    }
    Ok(())
}

fn of_container(line: Vec<String>) -> Result<Container, String> {
    const WANTED: &str = "it must begin with `docker run`, `podman run` or `nerdctl run`, and run the same command as --native";
    refuse_sudo("--container", &line)?;
    let client = client_of(&line).filter(|client| client.comm == client.engine);
    let Some(client) = client else {
        return Err(format!("--container is no command of a container engine: {WANTED}"));
    };
    let request = client_args::request(client.comm, &line);
    let verb = line.len().checked_sub(request.words.len() + 1).and_then(|at| line.get(at));
    if request.intent != Intent::New || verb.is_none_or(|verb| verb != "run") {
        return Err(format!("--container starts no new container: {WANTED}"));
    }
    let Options { names, image } = options(&request.words);
    for refused in REFUSED {
        if let Some(name) = names.iter().find(|name| refused.names.contains(&name.as_str())) {
            return Err(format!("--container has {name}: {}", refused.why));
        }
    }
    if !names.iter().any(|name| name == "--rm") {
        return Err(
            "--container lacks --rm: a container that stays is a part of the next run; add it".to_owned()
        );
    }
    let image = image.ok_or("--container names no image")?;
    Ok(Container { engine: client.engine, global: request.global, image, line })
}

struct Options {
    /// As they are called: `-v`, `--volume`.
    names: Vec<String>,
    image: Option<String>,
}

/// Options before the image, and the image.
fn options(words: &[String]) -> Options {
    let mut names = vec![];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return Options { names, image: words.next().cloned() };
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, has_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            let name = format!("--{name}");
            if !has_value && !SWITCHES.contains(&name.as_str()) {
                words.next();
            }
            // `--detach=false` is none.
            if !(SWITCHES.contains(&name.as_str()) && long.ends_with("=false")) {
                names.push(name);
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let switches = letters.chars().take_while(|letter| LETTERS.contains(*letter)).count();
            names.extend(letters.chars().take(switches + 1).map(|letter| format!("-{letter}")));
            // The last letter takes the rest of the word, or the next one.
            if letters.chars().count() == switches + 1 {
                words.next();
            }
        } else {
            return Options { names, image: Some(word.clone()) };
        }
    }
    Options { names, image: None }
}

/// A folder for the report: absolute.
pub fn folder(dir: &Path, here: &Path) -> PathBuf {
    here.join(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(line: &str) -> Result<String, String> {
        of_container(split(line).unwrap()).map(|container| container.image)
    }

    #[test]
    fn the_image_is_the_first_word_that_is_no_option() {
        for line in [
            "docker run --rm IMAGE",
            "docker container run --rm IMAGE -d -t",
            "/usr/bin/docker --context there run --rm --gpus all -v /a:/b IMAGE run.sh",
            "podman run --rm --privileged --ipc=host -e A=B -p 80:80 -P IMAGE",
            "docker run --init --rm -qv /a:/b -uroot --ulimit memlock=-1 --detach=false IMAGE cmd",
            "nerdctl run --rm -- IMAGE --rm",
        ] {
            assert_eq!(image(line).as_deref(), Ok("IMAGE"), "{line}");
        }
    }

    #[test]
    fn what_would_not_be_a_run_is_refused() {
        for (line, said) in [
            ("python3 run.py", "no command of a container engine"),
            ("docker-compose run x", "no command of a container engine"),
            ("docker ps", "starts no new container"),
            ("docker create --rm image", "starts no new container"),
            ("docker exec x run", "starts no new container"),
            ("sudo docker run --rm image", "leave `sudo` out"),
            ("docker run image", "lacks --rm"),
            ("docker run image --rm", "lacks --rm"),
            ("docker run --rm", "names no image"),
            ("docker run --rm -d image", "has -d"),
            ("docker run --rm -it image", "has -t"),
            ("docker run --rm --tty image", "has --tty"),
            ("docker run --rm --pull=always image", "has --pull"),
        ] {
            assert!(image(line).unwrap_err().contains(said), "{line}: {:?}", image(line));
        }
    }

    #[test]
    fn a_native_command_is_one_that_can_be_started() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("plain"), "").unwrap();
        let of = |line: &str| natively(split(line).unwrap(), here.path());
        assert_eq!(of("true x").unwrap(), ["true", "x"]);
        assert_eq!(of("/bin/sh -c :").unwrap()[0], "/bin/sh");
        for (line, said) in [
            ("no-such-program", "no program no-such-program"),
            ("./none", "No such file"),
            ("./plain", "cannot be executed"),
            ("/bin", "no file"),
            ("docker run image", "is a command of docker"),
            ("sudo true", "leave `sudo` out"),
        ] {
            assert!(of(line).unwrap_err().contains(said), "{line}: {:?}", of(line));
        }
    }

    #[test]
    fn two_equal_commands_are_refused_whatever_they_are() {
        let line = "docker run --rm 'image'";
        let error = read(line, "docker  run --rm image", Path::new("/")).unwrap_err();
        assert!(error.contains("the same command"), "{error}");
    }
}
