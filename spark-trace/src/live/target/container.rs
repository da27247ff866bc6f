//! Containers: their ids in cgroup paths, and what their engine says of them.

use std::{
    collections::BTreeMap,
    io,
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::recording::Container;

/// The label by which compose names the service that a container is of.
pub const SERVICE_LABEL: &str = "com.docker.compose.service";

/// The container id in a cgroup's path: `/docker/ID`, `docker-ID.scope`, `libpod-ID.scope`,
/// `/default/ID`. The supervisor that podman keeps beside a container (`libpod-conmon-ID`) is not it.
pub fn id_in_path(path: &str) -> Option<&str> {
    path.split('/').find_map(|component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let id = name.rsplit('-').next()?;
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        (is_id && !name.contains("conmon")).then_some(id)
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: Option<String>,
    image: Option<String>,
    image_name: Option<String>,
    config: Option<InspectedConfig>,
    state: Option<InspectedState>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    pid: Option<u32>,
}

/// A container as its engine describes it, with the pid of its first process if it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub container: Container,
    pub pid: Option<u32>,
}

/// Asks the engine about a container. `client` is the engine's command with its global flags.
pub fn inspect(engine: &str, client: &[String], name: &str) -> io::Result<Description> {
    let (program, args) = client.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let output = Command::new(program)
        .args(args)
        .args(["container", "inspect", name])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "{} container inspect {name}: {}",
            client.join(" "),
            message.trim()
        )));
    }
    parse(engine, &output.stdout).ok_or_else(|| {
        io::Error::other(format!("{engine} container inspect {name} did not answer with a container"))
    })
}

fn parse(engine: &str, json: &[u8]) -> Option<Description> {
    let found = serde_json::from_slice::<Vec<Inspected>>(json).ok()?.into_iter().next()?;
    Some(Description {
        pid: found.state.and_then(|s| s.pid).filter(|pid| *pid > 0),
        container: Container {
            engine: engine.to_owned(),
            id: found.id,
            name: found.name.map(|n| n.trim_start_matches('/').to_owned()),
            image: found.config.as_ref().and_then(|c| c.image.clone()).or(found.image_name),
            image_id: found.image,
            service: found.config.and_then(|c| c.labels).and_then(|mut labels| labels.remove(SERVICE_LABEL)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ids_are_found_as_each_engine_writes_them() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/default/{ID}"),
            format!("/kubepods/besteffort/pod1/{ID}"),
        ] {
            assert_eq!(id_in_path(&path), Some(ID), "{path}");
        }
        assert_eq!(id_in_path(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
        assert_eq!(id_in_path("/system.slice/ssh.service"), None);
        assert_eq!(id_in_path(&format!("/docker/{}", &ID[..63])), None);
    }

    #[test]
    fn answers_are_read() {
        let json = format!(
            r#"[{{"Id":"{ID}","Name":"/web","Image":"sha256:1","Config":{{"Image":"w:1","X":1}},"State":{{"Pid":7}}}}]"#
        );
        let found = parse("docker", json.as_bytes()).unwrap();
        assert_eq!(found.pid, Some(7));
        assert_eq!(found.container.name.as_deref(), Some("web"));
        assert_eq!(found.container.image.as_deref(), Some("w:1"));
        assert!(parse("docker", b"[]").is_none());
        assert!(parse("docker", b"error").is_none());
    }
}
