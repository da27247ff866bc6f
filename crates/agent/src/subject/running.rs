//! Names of the containers that run now, so that a cgroup can be called what its user calls it.
//!
//! Nothing is executed for it: Docker is queried on its socket, and Podman's own list is read.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use serde::Deserialize;

use spark_trace_recording::Container;

/// Time for an engine to answer.
const LONGEST_ANSWER: Duration = Duration::from_millis(800);
/// Read of an answer, at most.
const LONGEST_LIST: u64 = 16 << 20;

const DOCKER: &str = "docker";
const PODMAN: &str = "podman";
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where Podman keeps root's containers by default, and those that are not to outlive the machine's start.
const PODMAN_LISTS: &[&str] = &[
    "/var/lib/containers/storage/overlay-containers/containers.json",
    "/run/containers/storage/overlay-containers/containers.json",
];

/// A container in the answer of Docker to `GET /containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    image: Option<String>,
}

/// A container in Podman's list.
#[derive(Debug, Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// Of the containers with these ids those that an engine names.
pub fn named(ids: &BTreeSet<&str>) -> Vec<Container> {
    if ids.is_empty() {
        return Vec::new();
    }
    let mut found = docker().unwrap_or_default();
    found.extend(PODMAN_LISTS.iter().flat_map(|list| podman(list).unwrap_or_default()));
    found.retain(|container| container.name.is_some() && ids.contains(container.id.as_str()));
    found
}

fn docker() -> io::Result<Vec<Container>> {
    let host = std::env::var("DOCKER_HOST").ok();
    let socket = match &host {
        Some(host) => match host.strip_prefix("unix://") {
            Some(socket) => PathBuf::from(socket),
            // Another machine's containers have no cgroups here.
            None => return Ok(Vec::new()),
        },
        None => PathBuf::from(DOCKER_SOCKET),
    };
    // connect(2) has no time limit of its own.
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || sender.send(query(&socket)));
    let answer =
        answer.recv_timeout(LONGEST_ANSWER).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    listed(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The body of the answer: with version 1.0 it comes in one piece, and the connection ends with it.
fn query(socket: &PathBuf) -> io::Result<Vec<u8>> {
    let until = Instant::now() + LONGEST_ANSWER;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(LONGEST_ANSWER))?;
    stream.write_all(b"GET /containers/json HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    while (answer.len() as u64) < LONGEST_LIST {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            read => answer.extend_from_slice(part.get(..read).unwrap_or_default()),
        }
    }
    Ok(answer)
}

fn listed(answer: &[u8]) -> Option<Vec<Container>> {
    let end = b"\r\n\r\n";
    let head = answer.windows(end.len()).position(|window| window == end)?;
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    if status != b"200" {
        return None;
    }
    let found: Vec<Listed> = serde_json::from_slice(answer.get(head + end.len()..)?).ok()?;
    let named = found.into_iter().map(|listed| Container {
        engine: DOCKER.to_owned(),
        id: listed.id,
        name: listed.names.first().map(|name| name.trim_start_matches('/').to_owned()),
        image: listed.image,
        ..Container::default()
    });
    Some(named.collect())
}

fn podman(list: &str) -> io::Result<Vec<Container>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(list)?;
    let mut text = Vec::new();
    file.take(LONGEST_LIST).read_to_end(&mut text)?;
    Ok(stored(&text).unwrap_or_default())
}

fn stored(text: &[u8]) -> Option<Vec<Container>> {
    let found: Vec<Stored> = serde_json::from_slice(text).ok()?;
    let named = found.into_iter().map(|stored| Container {
        engine: PODMAN.to_owned(),
        id: stored.id,
        name: stored.names.into_iter().next(),
        ..Container::default()
    });
    Some(named.collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const BODY: &str =
        r#"[{"Id":"ab12","Names":["/web","/x/web"],"Image":"w:1","Command":"sh"},{"Id":"cd34"}]"#;

    #[test]
    fn answers_are_read_and_errors_are_not() {
        let ok = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{BODY}");
        let found = listed(ok.as_bytes()).unwrap();
        assert_eq!((found[0].id.as_str(), found[0].name.as_deref()), ("ab12", Some("web")));
        assert_eq!(found[1].name, None);
        assert!(listed(format!("HTTP/1.0 400 Bad Request\r\n\r\n{BODY}").as_bytes()).is_none());
        assert!(listed(b"HTTP/1.0 200 OK\r\n\r\nno list").is_none() && listed(b"").is_none());
        let found = stored(br#"[{"id":"ef56","names":["pod"],"image":"y"},{"id":"gh78"}]"#).unwrap();
        assert_eq!(
            (found[0].id.as_str(), found[0].name.as_deref(), &found[1].name),
            ("ef56", Some("pod"), &None)
        );
    }

    #[test]
    fn an_engine_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let begun = Instant::now();
        assert!(query(&socket).is_err());
        assert!(begun.elapsed() < 20 * LONGEST_ANSWER);
        assert!(query(&dir.path().join("none")).is_err());
    }
}
