//! The containers of a target, in a line of its header.

use spark_trace_common::engine::client;

use spark_trace_recording::{Container, Target};

/// Digits of an id as engines list them.
const SHORT: usize = 12;

/// What the target's containers are, where a command was recorded that is not an engine's own `run`.
pub fn line(target: &Target) -> Option<String> {
    let itself =
        target.argv.first().is_some_and(|word| client(word.rsplit('/').next().unwrap_or(word)).is_some());
    let one = target.containers.len() == 1 && itself;
    if one || target.argv.is_empty() || target.containers.is_empty() {
        return None;
    }
    let started = |container: &&Container| {
        let mut own = target.cgroups.iter().filter(|cgroup| cgroup.container.as_ref() == Some(&container.id));
        own.any(|cgroup| cgroup.created_ns.is_some())
    };
    let (new, old): (Vec<&Container>, Vec<&Container>) = target.containers.iter().partition(started);
    let list =
        |containers: &[&Container]| containers.iter().map(|c| called(c)).collect::<Vec<_>>().join(", ");
    let containers = |of: &[&Container]| if of.len() == 1 { "container" } else { "containers" };
    let mut parts = Vec::new();
    if !new.is_empty() {
        parts.push(format!("The command started {} {}", containers(&new), list(&new)));
    }
    if !old.is_empty() {
        parts.push(format!("The command entered {} {}", containers(&old), list(&old)));
    }
    let whole = if target.is_command() {
        "The target is the command with these containers"
    } else if target.containers.len() == 1 {
        "The target is this container"
    } else {
        "The target is these containers"
    };
    Some(format!("{}. {whole}.", parts.join(". ")))
}

/// A container as a user knows it: service, name and id.
fn called(container: &Container) -> String {
    let id = container.id.get(..SHORT).unwrap_or(&container.id);
    let service =
        container.service.as_ref().map_or_else(String::new, |service| format!(", service {service}"));
    match &container.name {
        Some(name) => format!("{name} ({id}{service})"),
        None => format!("{id}{service}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::{TargetCgroup, TargetKind};

    #[test]
    fn new_containers_are_distinguished_from_those_that_ran() {
        let container = |id: &str, service: Option<&str>| Container {
            id: id.repeat(64),
            name: Some(format!("name-{id}")),
            service: service.map(ToOwned::to_owned),
            ..Container::default()
        };
        let cgroup = |id: &str, created_ns| TargetCgroup {
            container: Some(id.repeat(64)),
            created_ns,
            ..TargetCgroup::default()
        };
        let mut target = Target {
            kind: TargetKind::Container.into(),
            argv: vec!["up.sh".into()],
            containers: vec![container("a", Some("web"))],
            cgroups: vec![cgroup("a", Some(1)), cgroup("b", None)],
            ..Target::default()
        };
        assert_eq!(
            line(&target).unwrap(),
            "The command started container name-a (aaaaaaaaaaaa, service web). The target is this container."
        );
        target.containers.push(container("b", None));
        target.kind = TargetKind::Command.into();
        assert_eq!(
            line(&target).unwrap(),
            "The command started container name-a (aaaaaaaaaaaa, service web). The command entered container name-b \
             (bbbbbbbbbbbb). The target is the command with these containers."
        );
        target.argv.clear();
        assert_eq!(line(&target), None);
    }
}
